"""A plot of a prediction; it needs matplotlib, which the extra `plot` installs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.errors import ArcmtpError
from arcmtp.predict.report import Report, Speed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


def check(path: Path) -> None:
    """Raises ArcmtpError if matplotlib or the folder is missing, or the file would be of another format."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ArcmtpError("plots need matplotlib: pip install 'arcmtp[plot]'") from None
    if path.suffix not in (".png", ".svg"):
        raise ArcmtpError(f"{path}: expected a file that ends with .png or .svg")
    if not path.parent.is_dir():
        raise ArcmtpError(f"{path}: there is no folder {path.parent}; expected one for the plot")


def draw(report: Report, path: Path) -> None:
    """Decoding by depth and KV type, prompts, drafts; bars are expected, lines the ranges.

    Raises ArcmtpError for a file that cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    figure.suptitle(f"predicted: {report.model} on {report.card}", fontsize="medium")
    for axes, title, speeds in zip(
        figure.subplots(1, 3, width_ratios=(2, 1, 1)), ("decode", "prompt", "with drafts"),
        (report.decode, report.prompt, report.mtp), strict=True,
    ):  # fmt: skip
        _bars(axes, title, speeds)
    try:
        figure.savefig(path, dpi=90)
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; the plot cannot be written") from None


def _bars(axes: Axes, title: str, speeds: Sequence[Speed]) -> None:
    several = len({speed.kv_type for speed in speeds}) > 1
    names = [f"{speed.what.split(',')[0]}{f' {speed.kv_type}' if several else ''}" for speed in speeds]
    ranges = [speed.per_second for speed in speeds if speed.per_second]
    expected = [of.expected for of in ranges]
    below = [of.expected - of.worst for of in ranges]
    above = [of.best - of.expected for of in ranges]
    axes.bar(range(len(names)), expected, yerr=[below, above], capsize=3, color="#7aa6c2")
    axes.set_xticks(range(len(names)), labels=names, rotation=60, ha="right", fontsize="x-small")
    axes.set_ylabel("tokens/s, predicted")
    axes.set_title(title, fontsize="small")
    axes.grid(alpha=0.3, axis="y")
