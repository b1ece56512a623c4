"""`arcmtp doctor`: whether this machine is right for arcmtp, a line a check, with the remedy where it is not.

Checks that load the SYCL runtime run in a forked process, so that a driver that crashes or hangs becomes a finding.
"""

import sys
from collections.abc import Iterable, Iterator

from arcmtp.doctor.findings import Finding, NamedCheck, guarded
from arcmtp.doctor.machine import Machine
from arcmtp.doctor.planned_model import PlannedModel
from arcmtp.forked import NoAnswer, ProcessEnded, forked

PATIENCE_S = 300.0  # compiling on a busy machine takes most of a minute
DRIVER_REMEDY = "`dmesg` may say more; update the driver"


def examine(machine: Machine, device: str | None = None, model: PlannedModel | None = None) -> Iterator[Finding]:
    """Run every check, one finding after the other.

    device: the dpctl filter string of the device to try; None takes the default one.
    model: adds what its weights and context take of the device's memory.
    """
    yield from _run(machine.checks())
    checks = _device_checks(machine, device, model)
    # A copy of a process whose SYCL runtime has begun lacks the runtime's threads and would wait for them.
    yield from (_run(checks) if "dpctl" in sys.modules else isolated(checks, PATIENCE_S))


def line(finding: Finding) -> str:
    """The finding for a terminal."""
    remedy = f" → {finding.remedy}" if finding.remedy else ""
    return f"{finding.status:<8} {finding.check:<14} {finding.message}{remedy}"


def summary(findings: Iterable[Finding]) -> str:
    """The last line: how many problems and warnings there are."""
    found = [finding.status for finding in findings]
    counts = [(found.count("problem"), "problem"), (found.count("warning"), "warning")]
    return ", ".join(f"{count or 'no'} {what}{'s' * (count != 1)}" for count, what in counts)


def _run(checks: Iterable[NamedCheck]) -> Iterator[Finding]:
    for name, check in checks:
        yield from guarded(name, check)


def _device_checks(machine: Machine, device: str | None, model: PlannedModel | None) -> Iterator[NamedCheck]:
    try:
        from arcmtp.doctor.device import DeviceChecks
    except Exception as error:  # a libsycl that is missing or not the right one, most likely
        message = f"{type(error).__name__}: {error}"
        remedy = "unset LD_LIBRARY_PATH; if that does not help, pip install --force-reinstall arcmtp"
        yield "sycl runtime", lambda: iter([Finding("sycl runtime", "problem", message, remedy)])
    else:
        yield from DeviceChecks(machine, device, model)


def isolated(checks: Iterable[NamedCheck], patience_s: float) -> Iterator[Finding]:
    """Run `checks` in a forked process; its death, or `patience_s` seconds without an answer, is a problem."""
    under_way = "sycl runtime"  # which loads before the first check says its name
    try:
        for message in forked(lambda: _named(checks), patience_s):
            if isinstance(message, Finding):
                yield message
            else:
                under_way = message
    except NoAnswer as silence:
        yield Finding(under_way, "problem", str(silence), DRIVER_REMEDY)
    except ProcessEnded as end:
        yield Finding(under_way, "problem", f"this check ended the process: {end}", DRIVER_REMEDY)


def _named(checks: Iterable[NamedCheck]) -> Iterator[str | Finding]:
    """Each check's name before it runs, and what it finds."""
    for name, check in checks:
        yield name
        yield from guarded(name, check)
