"""What the tests of the benchmarks share with those of the engine."""

from tests.engine.conftest import tiny

__all__ = ["tiny"]
