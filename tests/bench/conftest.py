"""What the tests of the benchmarks share with those of the engine and of the server."""

from tests.engine.conftest import tiny
from tests.serve.conftest import server

__all__ = ["server", "tiny"]
