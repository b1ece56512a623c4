"""Which tokens may be drafted, from numbers and files."""

from pathlib import Path

import numpy as np
import pytest

from arcmtp.engine.llm import bundled_model
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.draft_vocabulary import DraftVocab, draft_tokens
from arcmtp.model.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(GGUF(bundled_model()).metadata)


@pytest.fixture(scope="module")
def always(tokenizer: Tokenizer) -> set[int]:
    """Those that end a generation, and `<think>` and its like."""
    found = set(tokenizer.eos_ids | tokenizer.user_defined_ids)
    assert {tokenizer.encode(text)[0] for text in ("<|im_end|>", "<think>", "</think>", "<tool_call>")} <= found
    return found


def some(vocab: DraftVocab, tokenizer: Tokenizer) -> list[int]:
    tokens = draft_tokens(vocab, tokenizer)
    assert tokens is not None and tokens.dtype == np.int32
    assert tokens.tolist() == sorted(set(tokens.tolist()))
    return tokens.tolist()


@pytest.mark.parametrize("vocab", ["full", 6144])
def test_all_tokens_need_no_list(tokenizer: Tokenizer, vocab: DraftVocab) -> None:
    assert draft_tokens(vocab, tokenizer) is None


@pytest.mark.parametrize("count", [1, 3, 64, 1000, 6143])
def test_a_number_takes_the_lowest_ids_and_what_always_may_be_drafted(
    tokenizer: Tokenizer, always: set[int], count: int
) -> None:
    tokens = some(count, tokenizer)
    assert len(tokens) == count
    others = [token for token in tokens if token not in always]
    assert len(others) == max(count - len(always), 0)
    assert others == [token for token in range(6144) if token not in always][: len(others)]


def test_a_file_names_ids_in_any_order(tokenizer: Tokenizer, always: set[int], tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes("# ids – and counts\n\n 77 12\r\n5 # the fifth\n\t6143 1\n12".encode())
    assert some(path, tokenizer) == sorted({5, 12, 77, 6143} | always)
    assert some(str(path), tokenizer) == some(path, tokenizer)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no token ids; expected one in each line"),
        (b"# 5\n\n", "has no token ids; expected one in each line"),
        (b"5\n6144\n", "line 2: id 6144 is outside the vocabulary of 6144 tokens"),
        (b"5\n\n#\n" + b"9" * 3000, f"line 4: id {'9' * 40} is outside the vocabulary of 6144 tokens"),
        (b"7 9\n8\n7\n", "line 3: id 7 is in line 1 already"),
        (b"1\n-5\n", "line 2: '-5' is no token id, with a count or without"),
        (b"1 2 3\n", "line 1: '1 2 3' is no token id, with a count or without"),
        (b"1 x\n", "line 1: '1 x' is no token id, with a count or without"),
        ("²\n".encode(), "line 1: '²' is no token id, with a count or without"),
        (b"1\n\xff\xfe\n", "line 2: byte 0 is not UTF-8; expected a token id"),
        (b"1\n#" + b"x" * 5000, "line 2: is longer than 4095 bytes; expected a token id"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused_with_its_line(
    tokenizer: Tokenizer, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(ArcmtpError) as caught:
        draft_tokens(path, tokenizer)
    assert str(caught.value) == f"{path}: {message}"


def test_what_is_no_file_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file or directory")):
        with pytest.raises(ArcmtpError) as caught:
            draft_tokens(path, tokenizer)
        assert str(caught.value) == f"{path}: {reason}; expected a file with a token id in each line"


@pytest.mark.parametrize("count", [0, -1, 6145])
def test_numbers_beyond_the_vocabulary_are_refused(tokenizer: Tokenizer, count: int) -> None:
    with pytest.raises(ArcmtpError, match=f"draft_vocab is {count}; it must be 'full', a file, or 1 to 6144 tokens"):
        draft_tokens(count, tokenizer)
