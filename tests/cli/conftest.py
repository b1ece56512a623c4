import pytest

from arcmtp import LLM


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(device="cpu")
