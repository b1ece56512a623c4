"""Tests of the emulator that runs Battlemage's machine code, loaded by scripts/battlemage/run.sh --execute."""

import os

import pytest


@pytest.fixture(autouse=True)
def emulator() -> None:
    if os.environ.get("ARCMTP_EMULATOR") != "1":
        pytest.skip("needs the emulator: make emulate-test")
