"""Opening the model and the texts that a command names, with progress on standard error."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from arcmtp.errors import ArcmtpError
from arcmtp.progress import Progress

if TYPE_CHECKING:
    from arcmtp import LLM
    from arcmtp.engine.loading import Draft

MTP_OPTIONS = ("draft_p_min", "draft_vocab", "draft_requant", "mtp_model", "mtp_hidden")


def load(options: argparse.Namespace, ctx: int | None, draft: Draft | None = 0, parallel: int = 1) -> LLM:
    """The model that `add_model_options` and `add_mtp_options` describe; ArcmtpError if it cannot be used."""
    from arcmtp.engine import LLM

    with ProgressBar() as progress:
        of_mtp = {name: getattr(options, name) for name in MTP_OPTIONS if hasattr(options, name)}
        llm = LLM(
            options.model, options.device, ctx, options.requant, options.graph, progress, draft, parallel=parallel,
            kv_type=options.kv_type, **of_mtp,
        )  # fmt: skip
    for name, error in llm.requant_errors.items():
        print(f"{name}: relative RMS error {error:.4f} in INT4", file=sys.stderr)
    return llm


def model_path(options: argparse.Namespace) -> Path:
    """The path that `--model` gives; without one the file name of the bundled model."""
    from arcmtp.engine.llm import BUNDLED_MODEL

    return Path(options.model or BUNDLED_MODEL)


def read_text(path: Path) -> str:
    """The text of a file, or of standard input for `-`; ArcmtpError for what is no UTF-8 text."""
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
