"""scripts/battlemage/timeline.py, and the instructions that the emulator writes for it."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from arcmtp.runtime.paths import kernel_dir
from scripts.battlemage import timeline

SCRIPTS = kernel_dir().parent / "scripts/battlemage"


def emulated(**environment: str) -> subprocess.CompletedProcess[str]:
    """The script for one row of `accept`, which is the quickest to compile."""
    command = [str(SCRIPTS / "run.sh"), "--execute", sys.executable, str(SCRIPTS / "timeline.py"), "accept"]
    return subprocess.run(
        command, capture_output=True, text=True, check=False,
        env={**os.environ, "ONEAPI_DEVICE_SELECTOR": "", **environment},
    )  # fmt: skip


def test_waits_are_told_with_the_instruction_behind_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("0 mov a\n12 add b\nsomething else\n40 mul c\n139 send d\n"))
    timeline.waits(100 - 1)
    told = capsys.readouterr().out.splitlines()
    assert [line.split() for line in told] == [["40", "→", "139", "send", "d"], ["139", "the", "end"]]


@pytest.mark.emulated
@pytest.mark.usefixtures("emulated_card")
def test_the_instructions_of_one_thread_are_told_with_their_cycles() -> None:
    done = emulated(ARCMTP_EMULATOR_CHECKS="lines", ARCMTP_EMULATOR_TIMELINE="accept:0:0")
    assert done.returncode == 0, done.stderr
    told = [line.split(" ", 1) for line in done.stderr.splitlines()]
    assert any("send.ugm" in text for _, text in told)
    cycles = np.array([int(cycle) for cycle, _ in told])
    launches = np.split(cycles, np.flatnonzero(cycles == 0)[1:])
    ends = [int(line.split()[-3]) for line in done.stdout.splitlines()]
    assert len(launches) == len(ends)
    for launch, end in zip(launches, ends, strict=True):
        assert len(launch) > 10 and (np.diff(launch) >= 0).all()
        assert launch[-1] < end  # when what the last instruction does has ended
    other = emulated(ARCMTP_EMULATOR_CHECKS="lines", ARCMTP_EMULATOR_TIMELINE="accept:9:0")  # there is no such group
    assert other.returncode == 0 and not other.stderr and other.stdout == done.stdout


@pytest.mark.emulated
@pytest.mark.usefixtures("emulated_card")
@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"ARCMTP_EMULATOR_TIMELINE": "accept:0:0", "ARCMTP_EMULATOR_CHECKS": "races"}, "CHECKS=lines"),
        ({"ARCMTP_EMULATOR_TIMELINE": "accept:0", "ARCMTP_EMULATOR_CHECKS": "lines"}, "KERNEL:GROUP:THREAD"),
    ],
)
def test_a_timeline_that_cannot_be_is_refused(environment: dict[str, str], told: str) -> None:
    done = emulated(**environment)
    assert done.returncode == 70 and told in done.stderr and done.stderr.count("\n") == 1
