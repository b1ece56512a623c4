"""The real models' layer shapes against llama.cpp: random weights, a prompt of 700 tokens.

tests/data/golden-random.json holds, per `--arch` and `--type` of scripts/make_random_model.py, llama.cpp's greedy ids
and 20 likeliest tokens (scripts/bench_vs_llama_cpp.py --golden; Q4_0 with LLAMA_ARG_REPACK=0).
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcmtp import LLM
from scripts.make_random_model import main as make_random_model

SIZES = {
    "qwen35moe": ["--layers", "4", "--experts", "16", "--used", "8"],
    "qwen35": ["--layers", "2", "--interval", "2"],  # a layer of each kind, 4.5 times as large
}
# Activations of 8 bits are rounded differently by both (docs/log.md, 2026-11-21); F16 has nothing to round.
CLOSE: dict[str, tuple[Callable[[list[float]], Any], float]] = {"f16": (np.max, 0.01), "q4_0": (np.mean, 0.03)}  # nats


@pytest.fixture(scope="module")
def golden(data_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data_dir / "golden-random.json").read_text())
    return content


@pytest.fixture(params=SIZES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=CLOSE)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(architecture: str, kind: str, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "random.gguf"
    size = ["--arch", architecture, *SIZES[architecture], "--vocab", "8192", "--type", kind]
    make_random_model([str(path), "--seed", "7", *size])
    yield path
    path.unlink()  # up to 1.7 GB, and pytest keeps the folders of three runs


def test_log_probabilities_are_llama_cpps(path: Path, architecture: str, kind: str, golden: dict[str, Any]) -> None:
    prompt, expected = golden["prompt_ids"], golden["models"][f"{architecture}-{kind}"]
    assert len(prompt) == 700
    with LLM(path, device="cpu", ctx=768, draft=0) as llm:
        result = llm.generate(prompt, max_tokens=len(expected["ids"]), logprobs=100)
    assert result.logprobs is not None
    assert result.ids == expected["ids"]
    pairs = zip(result.logprobs, expected["top"], strict=True)
    off = [abs(dict(ours)[token] - logprob) for ours, top in pairs for token, logprob in top]
    assert len(off) == 20 * len(expected["ids"])
    measure, close = CLOSE[kind]
    assert measure(off) <= close
