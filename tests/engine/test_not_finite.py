"""A model whose logits are NaN: nothing that shows numbers shows these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from arcmtp import LLM, SamplingOptions
from arcmtp.cli import main
from arcmtp.engine.llm import bundled_model
from arcmtp.engine.perplexity import perplexity
from arcmtp.errors import NotFinite
from arcmtp.gguf import GGUF

IDS = list(range(40))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with a final norm of which all weights are finite, and no product with them is."""
    path = tmp_path_factory.mktemp("models") / "overflow.gguf"
    tensor, content = GGUF(bundled_model()).tensors["output_norm.weight"], bytearray(bundled_model().read_bytes())
    content[tensor.offset : tensor.offset + tensor.nbytes] = np.full(tensor.elements, 3e38, "<f4").tobytes()
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def llm(file: Path) -> Iterator[LLM]:
    with LLM(file, device="cpu", ctx=64) as llm:
        yield llm


@pytest.mark.parametrize("options", [{}, {"logprobs": 3}, {"draft": 0}, {"sampling": SamplingOptions(temperature=1)}])
def test_a_generation_ends_in_an_error_that_names_the_file(llm: LLM, options: dict[str, object]) -> None:
    stream = llm.stream(IDS, **options)  # type: ignore[arg-type]
    with pytest.raises(NotFinite, match=r"^overflow\.gguf: the log-probability of token \d+ is (nan|-?inf): weights"):
        list(stream)
    assert (stream.result.ids, stream.ended) == ([], True)
    assert all(map(math.isfinite, stream.result.token_logprobs))


def test_perplexity_is_an_error_and_no_number(llm: LLM) -> None:
    with pytest.raises(NotFinite, match="log-probabilities in window 1 of 2 are NaN or infinite: weights of the file"):
        perplexity(llm, IDS, 16)


@pytest.mark.parametrize(
    "arguments", [["generate", "--raw", "-p", "x"], ["generate", "--raw", "-p", "x", "--json", "--logprobs", "2"]]
)
def test_the_command_prints_one_line_and_no_numbers(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([*arguments, "-m", str(file), "--device", "cpu", "-c", "64"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith("arcmtp: overflow.gguf: the log-probability of token ")
