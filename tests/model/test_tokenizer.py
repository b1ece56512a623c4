import json
import os
import random
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from arcmtp.errors import ArcmtpError, ContextExceeded
from arcmtp.gguf import GGUF
from arcmtp.model.tokenizer import BYTE_ALPHABET, Detokenizer, Tokenizer

ROOT = Path(__file__).parents[2]
TINY_MODEL = ROOT / "arcmtp/data/tiny-qwen36moe-q4_0.gguf"
GOLDEN = json.loads((ROOT / "arcmtp/data/golden.json").read_text())

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

AWKWARD_TEXTS = [
    "",
    "plain words, 1234 and   spaces \n\n\ttabs \r\n end   ",
    "don't DON'T we'll I'VE they're 'tis",
    "naïve café — e\u0301 decomposed, \u0301 leading mark",
    "क्षत्रिय संस्कृतम् กำลัง العَرَبِيَّة",
    "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 👍🏽",
    "\x00\x01\x7f\ufeff\u200b\u2028\U0010ffff",
    "<|im_start|>user\n<think>a</think><|im_end|><|im_end|>",
]


# The first 256 ids are the bytes, so ord() is the id of an ASCII character.
def synthetic_metadata(extra: tuple[tuple[str, int], ...] = (), merges: tuple[str, ...] = ()) -> dict[str, Any]:
    """The 256 byte tokens, the tokens the merges make, then `extra` (text, type), then `<|im_end|>` as EOS."""
    merged = ["".join(merge.split(" ")) for merge in merges]
    special = [*extra, ("<|im_end|>", CONTROL)]
    tokens = [*BYTE_ALPHABET, *merged, *(text for text, _ in special)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen35",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * (256 + len(merged)) + [kind for _, kind in special],
        "tokenizer.ggml.merges": list(merges),
        "tokenizer.ggml.eos_token_id": len(tokens) - 1,
    }


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return Tokenizer(GGUF(TINY_MODEL).metadata)


def random_texts(count: int) -> list[str]:
    rng = random.Random(7)
    alphabet = [*"ab zé\n' 9", "\u0301", "\u0940", "👍", "🏽", "\u200d", "क", "<|im_end|>", "<think>", "\U000e0067"]
    return ["".join(rng.choices(alphabet, k=rng.randrange(60))) for _ in range(count)]


@pytest.mark.parametrize("prompt", GOLDEN["prompts"], ids=lambda prompt: prompt["kind"])
def test_golden_prompts_encode_to_the_ids_of_llama_cpp(tiny: Tokenizer, prompt: dict[str, Any]) -> None:
    assert tiny.encode(prompt["text"]) == prompt["tokens"]
    assert tiny.decode(prompt["tokens"]) == prompt["text"]


@pytest.mark.parametrize("model", GOLDEN["models"])
def test_golden_continuations_decode_to_the_text_of_llama_cpp(tiny: Tokenizer, model: str) -> None:
    for run in GOLDEN["models"][model]:
        assert tiny.decode(run["tokens"], skip_special=True) == run["text"]


@pytest.mark.parametrize("text", AWKWARD_TEXTS)
@pytest.mark.parametrize("special", [True, False])
def test_every_text_survives_encoding_and_decoding(tiny: Tokenizer, text: str, special: bool) -> None:
    assert tiny.decode(tiny.encode(text, special=special)) == text


def test_random_texts_survive_encoding_and_decoding(tiny: Tokenizer) -> None:
    for text in random_texts(200):
        assert tiny.decode(tiny.encode(text)) == text


def test_control_tokens_in_text_are_parsed_only_when_asked(tiny: Tokenizer) -> None:
    (im_end,) = tiny.encode("<|im_end|>")
    assert tiny.token_bytes(im_end) == b"<|im_end|>"
    assert im_end not in tiny.encode("a<|im_end|>b", special=False)


def test_user_defined_tokens_are_always_parsed(tiny: Tokenizer) -> None:
    assert tiny.encode("<think>", special=False) == tiny.encode("<think>", special=True)
    assert len(tiny.encode("<think>", special=False)) == 1


def test_skipping_special_tokens_keeps_user_defined_ones(tiny: Tokenizer) -> None:
    assert tiny.decode(tiny.encode("<|im_start|><think>x<|im_end|>"), skip_special=True) == "<think>x"


def test_longer_special_tokens_are_matched_first() -> None:
    tokenizer = Tokenizer(synthetic_metadata(extra=(("<a", USER_DEFINED), ("<a>", USER_DEFINED))))
    assert tokenizer.encode("<a><a") == [257, 256]


def test_a_longer_special_token_wins_over_a_shorter_one_that_begins_before_it() -> None:
    tokenizer = Tokenizer(synthetic_metadata(extra=(("xy", USER_DEFINED), ("yzz", USER_DEFINED))))
    assert tokenizer.encode("xyzz") == [ord("x"), 257]


def test_merges_apply_in_rank_order() -> None:
    tokenizer = Tokenizer(synthetic_metadata(merges=("b c", "a b", "a bc")))
    assert tokenizer.encode("abc") == [258]
    assert tokenizer.encode("ab") == [257]


def test_digits_are_single_and_contractions_ignore_case() -> None:
    tokenizer = Tokenizer(synthetic_metadata(merges=("1 2", "' L", "'L L", "L x")))
    assert tokenizer.encode("12") == [ord("1"), ord("2")]
    assert tokenizer.encode("'LLx") == [258, ord("x")]


def test_qwen35_keeps_combining_marks_with_letters_and_qwen2_does_not() -> None:
    first, second = (BYTE_ALPHABET[byte] for byte in "\u0301".encode())
    metadata = synthetic_metadata(merges=(f"{first} {second}", f"b {first}{second}"))
    assert Tokenizer(metadata).encode("b\u0301") == [257]
    assert Tokenizer(metadata | {"tokenizer.ggml.pre": "qwen2"}).encode("b\u0301") == [ord("b"), 256]


def test_text_is_not_normalised(tiny: Tokenizer) -> None:
    assert tiny.encode("e\u0301") != tiny.encode("é")


def test_tokens_give_their_bytes_and_padding_rows_none() -> None:
    tokenizer = Tokenizer(synthetic_metadata(extra=(("née", USER_DEFINED), ("[PAD0]", UNUSED))))
    assert [tokenizer.token_bytes(token_id) for token_id in range(256)] == [bytes([byte]) for byte in range(256)]
    assert tokenizer.token_bytes(256) == "née".encode()
    assert tokenizer.token_bytes(257) == b""


@pytest.mark.parametrize("token_id", [-1, 6144])
def test_ids_outside_the_vocabulary_are_named(tiny: Tokenizer, token_id: int) -> None:
    with pytest.raises(ArcmtpError, match=f"token id {token_id} is outside the vocabulary of 6144 tokens"):
        tiny.decode([token_id])


def test_lone_surrogates_are_refused(tiny: Tokenizer) -> None:
    with pytest.raises(ArcmtpError, match=r"lone surrogate U\+DC80 at character 1"):
        tiny.encode("a\udc80")


def test_other_threads_run_while_a_long_text_is_encoded(tiny: Tokenizer) -> None:
    ids: list[int] = []
    thread = Thread(target=lambda: ids.extend(tiny.encode("hello world " * 50_000)))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # no thread is made to give way
    try:
        thread.start()
        assert not ids
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert tiny.decode(ids) == "hello world " * 50_000


def test_a_text_that_cannot_fit_is_refused_before_it_is_encoded(tiny: Tokenizer) -> None:
    with pytest.raises(ContextExceeded) as caught:
        tiny.encode("é" * 2401, context=100)  # the longest token has 48 bytes
    assert str(caught.value) == "the prompt has 4802 bytes, at least 101 tokens; the context holds 100"
    assert len(tiny.encode("é" * 2400, context=100)) > 100


def test_a_text_of_the_longest_tokens_alone_is_not_refused() -> None:
    special = synthetic_metadata(extra=(("<ééééééé>", USER_DEFINED),))  # 16 bytes, 9 characters
    assert Tokenizer(special).encode("<ééééééé>" * 3, context=3) == [256] * 3
    merged = synthetic_metadata(merges=("a a", "aa aa", "aaaa aaaa", "aaaaaaaa aaaaaaaa"))
    merged["tokenizer.ggml.token_type"][259] = UNUSED  # which does not keep it from being made
    assert Tokenizer(merged).encode("a" * 16 * 3, context=3) == [259] * 3


def test_end_of_generation_ids_of_the_tiny_model(tiny: Tokenizer) -> None:
    assert tiny.eos_ids == {tiny.encode("<|im_end|>")[0], tiny.encode("<|endoftext|>")[0]}


def test_end_of_generation_follows_llama_cpp_for_control_tokens_only() -> None:
    extra = (("<|fim_pad|>", CONTROL), ("<|repo_name|>", USER_DEFINED), ("<|file_sep|>", CONTROL), ("stop", NORMAL))
    metadata = synthetic_metadata(extra) | {"tokenizer.ggml.eot_token_id": 259}
    assert Tokenizer(metadata).eos_ids == {256, 258, 259, 260}


def test_the_used_vocabulary_ends_at_the_last_token_that_is_not_padding() -> None:
    metadata = synthetic_metadata()
    metadata["tokenizer.ggml.tokens"] += ["[PAD257]", "[PAD258]"]
    metadata["tokenizer.ggml.token_type"] += [UNUSED, UNUSED]
    assert Tokenizer(metadata).vocab_used == 257


def test_a_beginning_of_sequence_token_is_reported_only_where_the_file_asks_for_it() -> None:
    metadata = synthetic_metadata() | {"tokenizer.ggml.bos_token_id": 5}
    assert (Tokenizer(metadata).add_bos, Tokenizer(metadata).bos_id) == (False, None)
    asking = Tokenizer(metadata | {"tokenizer.ggml.add_bos_token": True})
    assert (asking.add_bos, asking.bos_id) == (True, 5)


def test_token_types_may_be_a_numpy_array() -> None:
    metadata = synthetic_metadata()
    metadata["tokenizer.ggml.token_type"] = np.array(metadata["tokenizer.ggml.token_type"], dtype=np.int32)
    assert Tokenizer(metadata).encode("a<|im_end|>") == [ord("a"), 256]


def streamed(tokenizer: Tokenizer, ids: list[int], skip_special: bool = False) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip_special)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


def test_streamed_pieces_of_random_ids_join_to_the_whole_decoding(tiny: Tokenizer) -> None:
    rng = random.Random(3)
    bytes_only = [i for i in range(tiny.vocab_used) if len(tiny.token_bytes(i)) == 1]
    for pool in (range(tiny.vocab_used), bytes_only):
        for _ in range(300):
            ids = rng.choices(pool, k=rng.randrange(1, 40))
            for skip_special in (False, True):
                pieces = streamed(tiny, ids, skip_special)
                assert "".join(pieces) == tiny.decode(ids, skip_special)


def test_streamed_pieces_of_random_texts_are_never_broken_characters(tiny: Tokenizer) -> None:
    for text in [*AWKWARD_TEXTS, *random_texts(200)]:
        pieces = streamed(tiny, tiny.encode(text))
        assert "".join(pieces) == text
        assert not any("\ufffd" in piece for piece in pieces)


def test_incomplete_bytes_are_held_back_until_flush(tiny: Tokenizer) -> None:
    emoji = [next(i for i in range(6144) if tiny.token_bytes(i) == bytes([byte])) for byte in "👍".encode()]
    detokenizer = Detokenizer(tiny)
    assert [detokenizer.push(token_id) for token_id in emoji] == ["", "", "", "👍"]
    assert [detokenizer.push(token_id) for token_id in emoji[:3]] == ["", "", ""]
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


PREFIX = "tokenizer.ggml."


@pytest.mark.parametrize("key", ["model", "pre", "tokens", "token_type", "merges", "eos_token_id"])
def test_a_missing_key_is_named(key: str) -> None:
    metadata = synthetic_metadata()
    del metadata[PREFIX + key]
    with pytest.raises(ArcmtpError, match=f"tokenizer.ggml.{key} is missing"):
        Tokenizer(metadata)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", np.array([1, 2]), "an array of 2 is not supported, expected 'gpt2'"),
        ("model", "gpt2\n\x1b[31m" + "x" * 70, r"'gpt2\n\x1b[31m" + "x" * 50 + "'… (80 characters) is not supported"),
        ("add_bos_token", np.array([True, False]), "an array of 2 is not true or false"),
        ("add_bos_token", "yes", "'yes' is not true or false"),
        ("eos_token_id", np.array([1, 2]), "an array of 2 is not an id below 257"),
        ("model", "llama", "'llama' is not supported, expected 'gpt2'"),
        ("pre", "llama-bpe", "'llama-bpe' is not supported, expected 'qwen35' or 'qwen2'"),
        ("pre", ["qwen35"], "not supported"),
        ("tokens", "abc", "expected an array of strings"),
        ("tokens", [*BYTE_ALPHABET, 7], "expected an array of strings"),
        ("tokens", [*BYTE_ALPHABET, ""], "entry 256 is empty"),
        ("tokens", [*BYTE_ALPHABET, "a"], "'a' occurs 2 times"),
        ("tokens", [*BYTE_ALPHABET[1:], "x1", "x2"], "none for byte 0x00"),
        ("token_type", [1] * 256, "expected 257 integers, one per entry of tokenizer.ggml.tokens"),
        ("token_type", [1.0] * 257, "expected 257 integers"),
        ("token_type", [[1], [1, 2]], "expected 257 integers"),
        ("token_type", 3, "expected 257 integers"),
        ("token_type", [1] * 256 + [9], "entry 256 is 9, expected a token type from 1 to 6"),
        ("token_type", [5] * 257, "every token is marked unused"),
        ("merges", ["a b", "ab"], "entry 0 is 'a b', whose parts or result are no tokens"),
        ("merges", ["ab"], "entry 0 is 'ab', expected two tokens with one space between"),
        ("merges", ["a b c"], "expected two tokens"),
        ("merges", [" a"], "expected two tokens"),
        ("merges", [["a", "b"]], "expected an array of strings"),
        ("eos_token_id", 257, "257 is not an id below 257"),
        ("eos_token_id", -1, "-1 is not an id"),
        ("eos_token_id", "2", "'2' is not an id"),
        ("eot_token_id", 1000, "1000 is not an id"),
    ],
)
def test_a_malformed_key_is_named_with_what_was_expected(key: str, value: Any, message: str) -> None:
    with pytest.raises(ArcmtpError) as caught:
        Tokenizer(synthetic_metadata() | {PREFIX + key: value})
    assert str(caught.value).startswith(PREFIX + key)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_files_tokenizer_names_the_file_in_its_errors() -> None:
    file = GGUF(TINY_MODEL)
    file.metadata = {**file.metadata, PREFIX + "pre": "llama-bpe"}
    with pytest.raises(ArcmtpError, match=rf"^{TINY_MODEL}: tokenizer\.ggml\.pre: 'llama-bpe' is not supported"):
        Tokenizer.from_gguf(file)


QWEN36_VECTORS = {
    "Explain how speculative decoding works in large language model inference, in three short paragraphs.": [
        *(814, 20139, 1204, 63520, 45543, 4138, 303, 3349, 3992, 1558, 42903, 11, 303, 2250, 2716, 41228, 13)
    ],
    "Q: What are the four fundamental forces of physics?\nA:": [
        *(48, 25, 3437, 513, 279, 2943, 15346, 8177, 314, 20665, 30, 198, 32, 25)
    ],
    "Translate to French: 'The quick brown fox jumps over the lazy dog.'": [
        *(26583, 310, 8323, 25, 359, 760, 3841, 13477, 37550, 33075, 888, 279, 15217, 5388, 3058)
    ],
    "Write a four-line poem about an old lighthouse.": [
        *(7734, 264, 2943, 8187, 31708, 883, 449, 2235, 324, 55965, 13)
    ],
    "Write a Python function that returns the n-th Fibonacci number using memoization. Include a docstring.": [
        *(
            7734,
            264,
            12654,
            709,
            421,
            4523,
            279,
            307,
            7324,
            76938,
            1324,
            1608,
            20781,
            1954,
            13,
            28763,
            264,
            4479,
            889,
            13,
        )
    ],
    "क्": [149567],
    "क्ष": [151858],
}


def test_qwen36_encodes_known_texts_to_known_ids() -> None:
    path = os.environ.get("ARCMTP_QWEN36_GGUF")
    if not path:
        pytest.skip("ARCMTP_QWEN36_GGUF does not name a GGUF file with the full Qwen3.6 vocabulary")
    tokenizer = Tokenizer(GGUF(path).metadata)
    for text, ids in QWEN36_VECTORS.items():
        assert tokenizer.encode(text) == ids
