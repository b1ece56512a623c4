"""One tiny model for all conversations, and one that thinks and answers as a script says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from arcmtp import LLM
from tests.serve import scripted_model

CONTEXT = 256
# A message with "forever" in it is thought about without end.
FOREVER = scripted_model.TEMPLATE.replace("if forever", "if 'forever' in messages[-1].content")


@pytest.fixture(scope="module")
def tiny() -> Iterator[LLM]:
    """The bundled model."""
    with LLM(device="cpu", ctx=CONTEXT, draft=2) as llm:
        yield llm


@pytest.fixture(scope="session")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says: I should look. Let me look. And two calls of tools."""
    assert FOREVER != scripted_model.TEMPLATE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripted_model, "TEMPLATE", FOREVER)
        return scripted_model.write(tmp_path_factory.mktemp("chat") / "script.gguf")


@pytest.fixture(scope="module")
def scripted(script: Path) -> Iterator[LLM]:
    """The model of that file."""
    with LLM(script, device="cpu", ctx=CONTEXT, draft=0) as llm:
        yield llm
