"""Counting the tokens of texts."""

from collections import Counter
from pathlib import Path

import pytest

from arcmtp.engine.llm import bundled_model
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model import token_counts
from arcmtp.model.draft_vocabulary import draft_tokens
from arcmtp.model.token_counts import TokenCounts
from arcmtp.model.tokenizer import Tokenizer


@pytest.fixture
def counts() -> TokenCounts:
    return TokenCounts(Tokenizer(GGUF(bundled_model()).metadata))


def pairs(counts: TokenCounts, most: int | None = None) -> list[tuple[int, int]]:
    """The lines as numbers."""
    return [(int(token), int(count)) for token, count in map(str.split, counts.as_text(most).splitlines())]


@pytest.mark.parametrize("piece", [1 << 20, 1000])
def test_a_text_in_pieces_has_the_counts_of_its_tokens(
    monkeypatch: pytest.MonkeyPatch, counts: TokenCounts, data_dir: Path, text: str, piece: int
) -> None:
    monkeypatch.setattr(token_counts, "PIECE", piece)
    calls: list[tuple[str, int, int]] = []
    path = data_dir / "perplexity.txt"
    counts.add([path], lambda *call: calls.append(call))
    ids = counts._tokenizer.encode(text)
    expected = Counter(ids)
    found = dict(pairs(counts))
    assert sum((Counter(found) - expected).values()) <= 0.002 * len(ids)  # blank lines that a cut divides
    assert piece < 2000 or found == dict(expected)
    assert calls[-1] == ("counting tokens", path.stat().st_size, path.stat().st_size)


def test_the_commonest_come_first_and_of_equals_the_lowest_id(counts: TokenCounts, data_dir: Path) -> None:
    counts.add([data_dir / "perplexity.txt"])
    found = pairs(counts)
    assert found == sorted(found, key=lambda pair: (-pair[1], pair[0])) and found[-1][1] > 0
    assert pairs(counts, 10) == found[:10]


def test_what_is_written_is_a_vocabulary(counts: TokenCounts, data_dir: Path, tmp_path: Path) -> None:
    counts.add([data_dir / "perplexity.txt"])
    path = tmp_path / "counts"
    path.write_text(counts.as_text(100))
    tokens = draft_tokens(path, counts._tokenizer)
    assert tokens is not None and {token for token, _ in pairs(counts, 100)} <= set(tokens.tolist())


def test_shares_of_the_text_by_number_of_tokens(counts: TokenCounts, tmp_path: Path) -> None:
    high = counts._tokenizer.decode([3000])
    assert counts._tokenizer.encode(high) == [3000]
    (tmp_path / "text").write_text(f"{high}\n{high}\n")
    counts.add([tmp_path / "text"])
    assert counts.coverage().splitlines() == [
        "4 tokens, 2 of 6,144 ids; shares of the lowest ids, of the commonest tokens",
        "1,024 tokens: 0.5000 1.0000",
        "2,048 tokens: 0.5000 1.0000",
        "4,096 tokens: 1.0000 1.0000",
    ]


def test_folders_give_their_texts_and_nothing_else(counts: TokenCounts, tmp_path: Path) -> None:
    (tmp_path / "deep" / ".git").mkdir(parents=True)
    for place, content in (
        ("a.txt", b"import os\n"), ("deep/b", b"import os\n"), ("deep/.git/c", b"import os\n"), (".d", b"import os\n"),
        ("e.bin", b"\xff\xfeimport os\n"), ("f.bin", b"import\0os\n"), ("empty", b""),
    ):  # fmt: skip
        (tmp_path / place).write_bytes(content)
    (tmp_path / "link").symlink_to(tmp_path / "none")
    counts.add([tmp_path])
    assert counts.counts.sum() == 2 * len(counts._tokenizer.encode("import os\n"))


def test_what_is_not_utf8_further_on_counts_as_replaced(
    monkeypatch: pytest.MonkeyPatch, counts: TokenCounts, tmp_path: Path
) -> None:
    monkeypatch.setattr(token_counts, "BEGIN", 3)
    path = tmp_path / "text"
    path.write_bytes(b"ab\xc3\xb6 \xff")
    counts.add([path])
    assert counts.counts.sum() == len(counts._tokenizer.encode("abö \ufffd"))


@pytest.mark.parametrize("content", [b"\xff", b"a\0b", None])
def test_a_path_to_no_text_is_refused(counts: TokenCounts, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    reason = "No such file or directory; expected" if content is None else "is no UTF-8 text; expected"
    with pytest.raises(ArcmtpError, match=f"{path}: {reason} a text or a folder of texts"):
        counts.add([path])


def test_a_corpus_without_text_is_refused(counts: TokenCounts, tmp_path: Path) -> None:
    with pytest.raises(ArcmtpError, match="the corpus has no text; expected UTF-8 texts, or folders with some"):
        counts.add([tmp_path])
