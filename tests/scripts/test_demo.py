"""What the emulated card's demo says of a text."""

from collections import Counter

import pytest

from scripts.battlemage.demo import Token, first_difference, summary

TEXT: list[Token] = [(5, -0.25), (7, -1.5)]


def test_the_same_tokens_and_log_probabilities_are_no_difference() -> None:
    assert first_difference(TEXT, list(TEXT)) is None


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ([(5, -0.25), (8, -1.5)], "token 1 is 7 of log-probability -1.5, the CPU's 8 of -1.5"),
        ([(5, -0.2500001), (7, -1.5)], "token 0 is 5 of log-probability -0.25, the CPU's 5 of -0.2500001"),
        ([(5, -0.25)], "the card wrote 2 tokens, the CPU 1"),
    ],
)
def test_the_first_difference_is_a_line(other: list[Token], line: str) -> None:
    assert first_difference(TEXT, other) == line


def test_instructions_are_told_in_all_and_a_token() -> None:
    counts = Counter({"instructions": 3_000_000, "pipes.dpas": 40_000})
    assert summary(counts, 700, 3, 1.25) == (
        "3 tokens in 1.2 s: 700 launches, 3,000,000 instructions, of them 40,000 dpas; 1,000,000 instructions a token"
    )
