"""A selftest from beginning to end: the parts, the file for an issue, the verdict that is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from arcmtp.progress import Progress
from arcmtp.runtime import verdict
from arcmtp.runtime.files import OutputFile
from arcmtp.selftest.registry import Part
from arcmtp.selftest.report import Report, as_json, file_name, head, line
from arcmtp.selftest.run import Result, describe, results


def selftest(
    parts: Sequence[Part], filter_string: str | None, output: Path | None, progress: Progress,
    tell: Callable[[str], None],
) -> tuple[Report, Path]:  # fmt: skip
    """Run parts on a device; the report, and the file where it is.

    output: the file; None: a name of device and date, in the working directory. tell: called with a line on the
    device, then with the lines of each part. Raises ArcmtpError for a device that cannot be opened and a file that
    cannot be written, before any part runs.
    """
    described = describe(filter_string)
    date, began, done = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), time.perf_counter(), list[Result]()

    def started(part: Part) -> None:
        progress(f"selftest: {part.name}", len(done), len(parts))

    output = output or Path(file_name(described, date))
    with OutputFile(output) as file:
        tell(head(described))
        for result in results(parts, filter_string, started):
            done.append(result)
            tell(line(result))
        report = Report(described, date, time.perf_counter() - began, tuple(done))
        file.write(as_json(report))
    passed = [result.part.name for result in done if not result.problem]
    verdict.keep(described.key, date[:10], passed, {each.part.name: each.part.ability for each in report.failed})
    return report, output
