import pytest

from arcmtp.constraint.grammars import Grammars
from arcmtp.engine.llm import bundled_model
from arcmtp.gguf import GGUF
from arcmtp.model.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf(GGUF(bundled_model()))


@pytest.fixture(scope="session")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer)
