"""Plots of a matrix; they need matplotlib, which the extra `plot` installs."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from arcmtp.bench.matrix import Matrix, name_of
from arcmtp.bench.matrix_text import Setup
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg")


class Plot:
    """Files that show a matrix: `path` if it ends with .png or .svg, both with these endings added if not.

    Raises ArcmtpError, before anything is measured, if matplotlib or the folder is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise ArcmtpError("plots need matplotlib: pip install 'arcmtp[plot]'") from None
        if not path.parent.is_dir():
            raise ArcmtpError(f"{path}: there is no folder {path.parent}; expected one for the plot")
        self.files = [path] if path.suffix in FORMATS else [path.with_name(path.name + ending) for ending in FORMATS]

    def draw(self, matrix: Matrix, setup: Setup) -> None:
        """Write the files: output over the draft setting and over the prompt's length, and input over that.

        Raises ArcmtpError for a file that cannot be written.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        figure.suptitle(f"{setup.model} on {setup.device}", fontsize="medium")
        over_drafts, over_lengths, inputs = figure.subplots(1, 3)
        _over_drafts(over_drafts, matrix)
        _over_lengths(over_lengths, matrix, "output")
        _over_lengths(inputs, matrix, "input")
        for file in self.files:
            try:
                figure.savefig(file, dpi=75)
            except OSError as error:
                raise ArcmtpError(f"{file}: {error.strerror}; the plot cannot be written") from None


def _over_drafts(axes: Axes, matrix: Matrix) -> None:
    names = [name_of(draft) for draft in matrix.drafts]
    for length in matrix.lengths:
        cells = [cell for cell in matrix.cells if cell.prompt == length]
        axes.plot(names, [median(cell.outputs) for cell in cells], marker="o", label=f"{_short(length)} tokens")
    _finish(axes, "tokens drafted before each step", "output", "after a prompt of")


def _over_lengths(axes: Axes, matrix: Matrix, what: str) -> None:
    for draft in matrix.drafts:
        cells = [cell for cell in matrix.cells if cell.draft == draft]
        speeds = [median(cell.inputs if what == "input" else cell.outputs) for cell in cells]
        axes.plot([cell.prompt for cell in cells], speeds, marker="o", label=name_of(draft))
    axes.set_xscale("log", base=2)
    axes.set_xticks(matrix.lengths, labels=list(map(_short, matrix.lengths)), minor=False)
    _finish(axes, "tokens of the prompt", what, "drafts")


def _short(length: int) -> str:
    return f"{length // 1024} K" if length % 1024 == 0 else str(length)


def _finish(axes: Axes, below: str, what: str, lines: str) -> None:
    axes.set_xlabel(below)
    axes.set_ylabel(f"{what}, tokens/s")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title=lines, fontsize="small", title_fontsize="small")
