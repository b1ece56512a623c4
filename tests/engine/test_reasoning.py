"""Stop strings and reasoning, with the text cut at every point."""

from collections.abc import Iterator, Sequence

import pytest

from arcmtp.engine.reasoning import ReasoningSplitter
from arcmtp.engine.stop_strings import StopStrings


def cuts(text: str) -> Iterator[list[str]]:
    """The text whole, by characters, and in two pieces cut at every point."""
    yield [text]
    yield list(text)
    for at in range(1, len(text)):
        yield [text[:at], text[at:]]


def stopped(pieces: Sequence[str], strings: Sequence[str]) -> tuple[str, bool]:
    stop = StopStrings(strings)
    shown = [stop.push(piece) for piece in pieces]
    return "".join([*shown, stop.flush()]), stop.found


def joined(pieces: Sequence[str], inside: bool) -> dict[str, str]:
    splitter = ReasoningSplitter(inside)
    parts = [part for piece in pieces for part in splitter.push(piece)] + splitter.flush()
    assert all(text for _, text in parts)
    return {kind: "".join(text for k, text in parts if k == kind) for kind in ("reasoning_content", "content")}


@pytest.mark.parametrize(
    ("text", "strings", "shown", "found"),
    [
        ("one END two", ["END"], "one ", True),
        ("ENDone", ["END"], "", True),
        ("one EN", ["END"], "one EN", False),
        ("one ENEND", ["END"], "one EN", True),
        ("aaab", ["aab"], "a", True),
        ("xabcd", ["abcd", "bc"], "xa", True),  # bc is complete first, whatever comes after
        ("xabc", ["bc", "abc"], "x", True),  # complete together: the longer
        ("naïve ☂ x", ["☂"], "naïve ", True),
        ("nothing", [], "nothing", False),
    ],
)
def test_text_ends_before_the_stop_string_that_is_complete_first(
    text: str, strings: list[str], shown: str, found: bool
) -> None:
    for pieces in cuts(text):
        assert stopped(pieces, strings) == (shown, found), pieces


def test_no_beginning_of_a_stop_string_leaks_before_it_is_refuted() -> None:
    stop = StopStrings(["</answer>", "answer!"])
    assert [stop.push(piece) for piece in ("x </", "answer", " y ans", "wer")] == ["x ", "", "</answer y ", ""]
    assert stop.push("!") == ""
    assert stop.found


@pytest.mark.parametrize(
    ("text", "inside", "reasoning", "content"),
    [
        ("Hm.\nWell.\n</think>\n\nYes. \n", True, "Hm.\nWell.", "Yes. \n"),
        ("\n\n</think>\n\nYes.", True, "", "Yes."),
        ("a < b </thin c\n", True, "a < b </thin c", ""),
        ("cut off </thi", True, "cut off </thi", ""),
        ("x</think>", True, "x", ""),
        ("x</think>a</think>b", True, "x", "a</think>b"),
        ("<think>\nHm.\n</think>\n\nYes.", False, "Hm.", "Yes."),
        (" \n<think>Hm.</think>Yes.", False, "Hm.", "Yes."),
        ("  Yes: <think> is a tag.", False, "", "  Yes: <think> is a tag."),
        ("<thing>", False, "", "<thing>"),
        (" <thi", False, "", " <thi"),
        ("", True, "", ""),
    ],
)
def test_reasoning_is_split_from_content(text: str, inside: bool, reasoning: str, content: str) -> None:
    for pieces in cuts(text):
        assert joined(pieces, inside) == {"reasoning_content": reasoning, "content": content}, pieces


def test_content_that_the_prompt_has_begun_opens_no_reasoning() -> None:
    splitter = ReasoningSplitter(inside=False, begun=True)
    assert splitter.push(" <think>") + splitter.push("x") == [("content", " <think>"), ("content", "x")]
