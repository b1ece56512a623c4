"""Perplexity against `llama-perplexity -c 512` on the same text, and its bad input."""

from pathlib import Path

import pytest

from arcmtp import LLM, ArcmtpError
from arcmtp.engine.perplexity import perplexity

WINDOW = 512


def test_f16_weights_have_llama_cpps_perplexity(tiny_f16: LLM, text: str) -> None:
    estimate = perplexity(tiny_f16, text, WINDOW)
    assert estimate.value == pytest.approx(16.3459, rel=0.005)
    assert (estimate.windows, estimate.tokens) == (29, 29 * 255)


def test_q4_0_weights_have_llama_cpps_perplexity(tiny: LLM, text: str) -> None:
    assert perplexity(tiny, text, WINDOW).value == pytest.approx(16.6116, rel=0.015)


def test_q4_k_m_weights_have_llama_cpps_perplexity(data_dir: Path, text: str) -> None:
    with LLM(data_dir / "tiny-qwen36moe-q4_k_m.gguf", device="cpu", ctx=WINDOW, draft=0) as llm:
        assert perplexity(llm, text, WINDOW).value == pytest.approx(16.4995, rel=0.015)


def test_progress_counts_windows(tiny: LLM, text: str) -> None:
    seen: list[tuple[int, int]] = []
    perplexity(tiny, text[:500], 32, lambda done, total: seen.append((done, total)))
    assert seen == [(done, len(seen)) for done in range(1, len(seen) + 1)]


@pytest.mark.parametrize(
    ("length", "window", "message"),
    [
        (400, 3, "a window of 3 tokens is not within 4 to the context's 1024"),
        (400, 1025, "a window of 1025 tokens is not within 4 to the context's 1024"),
        (0, 64, "the text has 0 tokens; perplexity needs at least 128 (two windows)"),
    ],
)
def test_a_window_or_text_that_cannot_be_scored_is_refused(
    tiny: LLM, text: str, length: int, window: int, message: str
) -> None:
    with pytest.raises(ArcmtpError) as error:
        perplexity(tiny, text[:length], window)
    assert str(error.value) == message
