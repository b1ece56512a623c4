"""Imported before any test module, so that the SYCL environment is prepared before dpctl loads libsycl."""

from pathlib import Path

import pytest

import arcmtp  # noqa: F401  imported for what it sets up


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the test models and texts."""
    return Path(__file__).parent / "data"
