"""Reading memory."""

from __future__ import annotations

from arcmtp.ops.bandwidth import GROUP_BYTES, READ_BYTES, ReadBandwidth
from arcmtp.predict.machine import CASES, machine
from arcmtp.selftest.findings import Figure, Findings
from arcmtp.selftest.subject import Subject

READS = 5


def run(subject: Subject) -> Findings:
    """The best of several reads, whose sum is checked; an emulator reads little."""
    nbytes = 4 * GROUP_BYTES if subject.emulated else READ_BYTES
    read = ReadBandwidth(subject.device, subject.device.zeros(nbytes))
    for _ in range(0 if subject.emulated else READS):
        read.measure()
    predicted = None
    if subject.hardware:
        best, expected, worst = (machine(subject.hardware, case).memory / 1e9 for case in CASES)
        predicted = best, expected, worst
    yield Figure("read", None if subject.emulated else read.gbs, "GB/s", predicted)
