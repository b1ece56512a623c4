import pytest

from arcmtp import LLM


@pytest.fixture(scope="module")
def llm() -> LLM:
    """What `arcmtp generate` loads."""
    return LLM(device="cpu", cache_mib=0, cache_host_mib=0)
