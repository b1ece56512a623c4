"""What a selftest found, as JSON for an issue and as lines for a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcmtp.runtime.verdict import WITHOUT, Ability
from arcmtp.selftest.findings import Difference, Figure, Finding, Note
from arcmtp.selftest.run import Result, share_of_allowed

if TYPE_CHECKING:
    from arcmtp.selftest.subject import Described

FORM = 1  # of the JSON; a reader of another number cannot rely on its keys


@dataclass(frozen=True)
class Report:
    """date: of the beginning, in UTC, as 2026-11-29T01:30:00Z. seconds: of all parts."""

    subject: Described
    date: str
    seconds: float
    results: tuple[Result, ...]

    @property
    def failed(self) -> list[Result]:
        """Parts that failed."""
        return [result for result in self.results if result.problem]


def file_name(subject: Described, date: str) -> str:
    """arcmtp-selftest-DEVICE-DATE.json, in letters that every file system takes. The date has the time, so that no run
    replaces the file of another one."""
    device = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\([A-Za-z]*\)", "", subject.device).lower()).strip("-")
    return f"arcmtp-selftest-{device}-{date[:19].replace(':', '')}.json"


def as_json(report: Report) -> str:
    """All of it, without the user's home folder; what JSON has no number for is a string, such as "nan"."""
    described = dataclasses.asdict(report.subject)
    del described["key"]
    content = {
        "form": FORM,
        "date": report.date,
        "seconds": round(report.seconds, 1),
        "passed": not report.failed,
        "failed": [result.part.name for result in report.failed],
        "without": without(report),
        **described,
        "parts": [_part(result) for result in report.results],
    }
    return anonymous(json.dumps(_plain(content), indent=1)) + "\n"


def without(report: Report) -> list[Ability]:
    """What arcmtp does without from now on."""
    lost = dict.fromkeys(result.part.ability for result in report.failed)
    return [ability for ability in lost if ability]


def head(subject: Described) -> str:
    """The device for a terminal."""
    return (
        f"{subject.device} ({subject.filter_string}), driver {subject.driver}, profile {subject.profile}, "
        f"arcmtp {subject.packages['arcmtp']}"
    )


def line(result: Result) -> str:
    """A part for a terminal, and its figures and notes below."""
    begin = f"{'FAILED' if result.problem else 'ok':<7} {result.part.name:<16} {result.seconds:6.1f} s  "
    first = (begin + anonymous(result.problem or _agreement(result))).rstrip()
    told = [figure_line(finding) for finding in result.findings if not isinstance(finding, Difference)]
    return "\n".join([first, *(f"{'':<36}{each}" for each in told)])


def summary(report: Report) -> str:
    """The last lines: how many parts failed, and what that means."""
    count = len(report.results)
    if not report.failed:
        return f"all {count} parts passed" if count > 1 else "the part passed"
    named = ", ".join(result.part.name for result in report.failed)
    lost = [WITHOUT[ability] for ability in without(report)]
    meaning = f"; from now on {' and '.join(lost)} (arcmtp selftest --clear forgets it)" if lost else ""
    return f"{len(report.failed)} of {count} parts failed: {named}{meaning}"


def figure_line(finding: Figure | Note) -> str:
    """A figure beside its prediction."""
    if isinstance(finding, Note):
        return finding.text
    value = f"{finding.what}: "
    value += "an emulator ran it" if finding.value is None else f"{finding.value:.4g} {finding.unit}"
    if finding.predicted is None:
        return f"{value}, no prediction"
    _, expected, _ = finding.predicted
    least, most = min(finding.predicted), max(finding.predicted)
    return f"{value}, predicted {expected:.4g} {finding.unit} ({least:.4g} to {most:.4g})"


def anonymous(text: str) -> str:
    """A text without the user's home folder and name."""
    homes = {str(Path(home)) for home in (os.path.expanduser("~"), os.environ.get("HOME", ""))} - {"/", ".", "~"}
    for home in sorted(homes, key=len, reverse=True):
        text = text.replace(home, "~")
    return re.sub(r"/home/[^/\s\"']+", "~", text)


def _agreement(result: Result) -> str:
    if not result.differences:
        return ""
    count = sum(difference.count for difference in result.differences)
    nearest = max(result.differences, key=share_of_allowed)
    return f"{count:,} values" + (
        f", at most {share_of_allowed(nearest):.0%} of the allowed difference" if nearest.allowed else ", all equal"
    )


def _part(result: Result) -> dict[str, Any]:
    part = result.part
    by_kind: dict[type[Finding], list[Any]] = {Difference: [], Figure: [], Note: []}
    for finding in result.findings:
        by_kind[type(finding)].append(finding)
    return {
        "name": part.name,
        "group": part.group,
        "passed": not result.problem,
        "problem": result.problem,
        "seconds": round(result.seconds, 2),
        "comparisons": [{**dataclasses.asdict(each), "ok": each.ok} for each in by_kind[Difference]],
        "figures": [_figure(each) for each in by_kind[Figure]],
        "notes": [each.text for each in by_kind[Note]],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    cases = ("best", "expected", "worst")
    predicted = None if figure.predicted is None else dict(zip(cases, figure.predicted, strict=True))
    return {**dataclasses.asdict(figure), "predicted": predicted}


def _plain(value: Any) -> Any:
    """The same with strings for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
