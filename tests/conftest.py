"""Imported before any test module, so that the SYCL environment is prepared before dpctl loads libsycl."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import arcmtp  # noqa: F401  imported for what it sets up
from arcmtp.runtime.device import Device
from arcmtp.selftest.parts.golden import golden as golden_texts

# What a shell runs in the background ignores SIGINT, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the test models and texts."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """llama.cpp's greedy ids and log-probabilities, by model file name."""
    return golden_texts()


@pytest.fixture(scope="session")
def text(data_dir: Path) -> str:
    """60,000 bytes that the tiny models have not seen."""
    return (data_dir / "perplexity.txt").read_text()


@pytest.fixture(scope="session")
def emulated_card() -> Device:
    """A Battlemage card of scripts/battlemage/run.sh --execute; without one the test is skipped."""
    if os.environ.get("ARCMTP_EMULATOR") != "1":
        pytest.skip("needs the emulated card: make emulate-test")
    return Device("level_zero:gpu")
