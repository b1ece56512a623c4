"""Running the parts in a forked process, so that a driver that crashes or hangs is a part that failed."""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from arcmtp.errors import ArcmtpError, one_line
from arcmtp.forked import ProcessEnded, forked
from arcmtp.selftest.findings import Difference, Finding
from arcmtp.selftest.registry import Part

if TYPE_CHECKING:
    from arcmtp.selftest.subject import Described, Subject

PATIENCE_S = 300.0  # for a part, which may compile on a busy machine
LAST_WORDS = 16_384  # bytes of a process that has ended, of what it wrote to standard error
BACKTRACE = re.compile(r"PLEASE submit a bug report|Stack dump|\s*#?\d+[.:]?\s")


@dataclass(frozen=True)
class Result:
    """How a part went. problem: what is wrong, empty if nothing is."""

    part: Part
    seconds: float
    findings: tuple[Finding, ...]
    problem: str = ""

    @property
    def differences(self) -> list[Difference]:
        """The comparisons that it made."""
        return [finding for finding in self.findings if isinstance(finding, Difference)]


def run_part(part: Part, opened: Callable[[], Subject]) -> Result:
    """Run a part here, on the subject that `opened` gives. Whatever goes wrong is its problem."""
    began, findings, problem = time.perf_counter(), list[Finding](), ""
    try:
        subject, module = opened(), import_module(part.module)
        each = module.compare(subject.bench) if part.group == "operators" else module.run(subject)
        findings.extend(each)
    except Exception as error:  # a driver may raise anything
        said = one_line(error)
        problem = said if isinstance(error, ArcmtpError | AssertionError) else f"{type(error).__name__}: {said}"
    wrong = [finding for finding in findings if isinstance(finding, Difference) and not finding.ok]
    if wrong and not problem:
        problem = str(max(wrong, key=share_of_allowed))
        problem += f" ({len(wrong)} comparisons are wrong)" if len(wrong) > 1 else ""
    return Result(part, time.perf_counter() - began, tuple(findings), problem)


def share_of_allowed(difference: Difference) -> float:
    """How near the largest difference is to its bound: 1 is at the bound."""
    if difference.allowed:
        return difference.largest / difference.allowed
    return float("inf") if difference.largest else 0.0


def describe(filter_string: str | None) -> Described:
    """The device of that dpctl filter string; None: the default one.

    Raises ArcmtpError for one that there is not, or whose driver does not open it.
    """

    def work() -> Iterator[Described | ArcmtpError]:
        from arcmtp.selftest.subject import Subject

        try:
            yield Subject(filter_string).described()
        except ArcmtpError as error:
            yield ArcmtpError(str(error))

    try:
        (described,) = apart(work, PATIENCE_S)
    except ProcessEnded as end:
        raise ArcmtpError(f"the device cannot be opened: {end} (arcmtp doctor may say more)") from None
    if isinstance(described, ArcmtpError):
        raise described
    return described


def results(
    parts: Sequence[Part], filter_string: str | None, started: Callable[[Part], None], patience_s: float = PATIENCE_S
) -> Iterator[Result]:
    """Run parts, one after the other, in a forked process, and after a part that failed in another one: what it has
    left behind is not for the next part. started: called with each part before it runs."""
    left = list(parts)
    while left:
        began = time.perf_counter()
        with tempfile.TemporaryFile() as errors:
            try:
                work = functools.partial(_work, list(left), filter_string)
                for message in apart(work, patience_s, errors):
                    if isinstance(message, Part):
                        began = time.perf_counter()
                        started(message)
                    else:
                        left.pop(0)
                        yield message
            except ProcessEnded as end:
                problem = f"the process of this part ended: {end}{_last_words(errors)}"
                yield Result(left.pop(0), time.perf_counter() - began, (), problem)


def apart(work: Callable[[], Iterator[Any]], patience_s: float, errors: IO[bytes] | None = None) -> Iterator[Any]:
    """What `work` yields in a forked process, whose standard error goes to `errors`. Where SYCL may have begun it is
    this process: a copy would lack its threads and wait for them.

    Raises ProcessEnded as `forked` does.
    """
    if "dpctl" in sys.modules:
        return work()

    def in_the_copy() -> Iterator[Any]:
        if errors:
            os.dup2(errors.fileno(), 2)
        yield from work()

    return forked(in_the_copy, patience_s)


def _work(parts: Sequence[Part], filter_string: str | None) -> Iterator[Part | Result]:
    """Each part before it runs, and its result, until one fails."""

    @functools.cache
    def subject() -> Subject:
        from arcmtp.selftest.subject import Subject

        return Subject(filter_string)

    for part in parts:
        yield part
        result = run_part(part, subject)
        yield result
        if result.problem:
            return


def _last_words(errors: IO[bytes]) -> str:
    """The last line that the process wrote to standard error, before the backtrace that a compiler library prints."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - LAST_WORDS))
    written = errors.read().decode(errors="replace").splitlines()
    lines = [line for line in written if line.strip() and not BACKTRACE.match(line)]
    return f"; it said: {one_line(Exception(lines[-1]))}" if lines else ""
