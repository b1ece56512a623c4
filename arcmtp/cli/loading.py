"""Opening the model and the texts that a command names, with progress on standard error."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from arcmtp.errors import ArcmtpError
from arcmtp.progress import Progress
from arcmtp.runtime import environment

if TYPE_CHECKING:
    from arcmtp import LLM
    from arcmtp.engine.loading import Draft
    from arcmtp.engine.model_file import ModelFile

MTP_OPTIONS = ("draft_p_min", "draft_vocab", "draft_requant", "mtp_model", "mtp_hidden")


def open_model(options: argparse.Namespace) -> ModelFile:
    """The file that `--model` names, to check what else was given before it is loaded; ArcmtpError if it cannot be
    used."""
    from arcmtp.engine.llm import bundled_model
    from arcmtp.engine.model_file import ModelFile

    return ModelFile.open(bundled_model() if options.model is None else options.model)


def read_files(options: argparse.Namespace, file: ModelFile) -> list[Path]:
    """The files that are read until the end, which no output may replace."""
    named = (getattr(options, name, None) for name in ("mtp_model", "draft_vocab"))
    return [*file.gguf.paths, *(Path(name) for name in named if isinstance(name, str) and Path(name).is_file())]


def load(
    options: argparse.Namespace, ctx: int | None, draft: Draft | None = 0, parallel: int = 1,
    file: ModelFile | None = None,
) -> LLM:  # fmt: skip
    """The model that `add_model_options` and `add_mtp_options` describe, whose file may be open already; ArcmtpError if
    it cannot be used."""
    from arcmtp.engine import LLM

    _tell_cache_problem()
    with ProgressBar() as progress:
        of_mtp = {name: getattr(options, name) for name in MTP_OPTIONS if hasattr(options, name)}
        llm = LLM(
            file or options.model, options.device, ctx, options.requant, options.graph, progress, draft,
            parallel=parallel, **of_mtp,
        )  # fmt: skip
    for name, error in llm.requant_errors.items():
        print(f"{name}: relative RMS error {error:.4f} in INT4", file=sys.stderr)
    return llm


@functools.cache
def _tell_cache_problem() -> None:
    """Say once, on standard error, that kernels will be compiled at each start."""
    if problem := environment.cache_problem():
        print(f"{problem}: no kernel is kept, each start compiles them all", file=sys.stderr)


def model_path(options: argparse.Namespace) -> Path:
    """The path that `--model` gives; without one the file name of the bundled model."""
    from arcmtp.engine.llm import BUNDLED_MODEL

    return Path(options.model or BUNDLED_MODEL)


def read_text(path: Path) -> str:
    """The text of a file, or of standard input for `-`; ArcmtpError for what is no UTF-8 text."""
    if str(path) == "-" and sys.stdin is None:
        raise ArcmtpError("-: standard input is closed; expected a text")
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return content.decode()
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a text file") from None
    except UnicodeDecodeError as error:
        raise ArcmtpError(f"{path}: byte {error.start} is not UTF-8; expected a UTF-8 text") from None


class ProgressBar:
    """A bar per stage on a terminal's standard error, a line per stage elsewhere; a context manager.

    Entering gives the function to call as progress(stage, done, total).
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __enter__(self) -> Progress:
        return self._update

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _update(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.__exit__()
            self._stage = stage
            if not sys.stderr.isatty():
                print(f"{stage} …", file=sys.stderr, flush=True)
            in_bytes = stage in ("loading weights", "writing tensors", "counting tokens")
            self._bar = tqdm(
                desc=stage, total=total, unit="B" if in_bytes else "", unit_scale=in_bytes, leave=False, disable=None
            )
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
