"""What the commands share: their parser, the options that open a model, and progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp import LLM


class Parser(argparse.ArgumentParser):
    """Takes long options by their whole names only, and reports wrong usage as the rest of bad input: in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # what `--dra` means would change with each new option

    def error(self, message: str) -> NoReturn:
        raise ArcmtpError(f"{message} (see {self.prog} --help)")


def add_model_options(
    parser: argparse.ArgumentParser, context_help: str | None = "tokens of context (default 8192 or the model's limit)"
) -> None:
    """What opens a model; context_help: None for a command without `--ctx`."""
    parser.add_argument("-m", "--model", metavar="FILE", help="a GGUF file (default: the bundled tiny model)")
    if context_help:
        parser.add_argument("-c", "--ctx", metavar="N", type=integer(1), help=context_help)
    parser.add_argument("--device", metavar="D", help="a dpctl filter string such as cpu or level_zero:gpu:0")
    parser.add_argument(
        "--graph", action=argparse.BooleanOptionalAction,
        help="replay steps as a graph (default: if that is faster, and not on the CPU)",
    )  # fmt: skip
    parser.add_argument("--requant", choices=["int4"], help="turn the large matrices into 4-bit weights while loading")


def integer(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return parse


def integers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [integer(0)(part) for part in text.split(",")]


def load(options: argparse.Namespace, ctx: int | None, draft: int | None = 0, parallel: int = 1) -> LLM:
    """The model of a command with `add_model_options`, with progress on standard error."""
    from arcmtp.engine import LLM

    with Progress() as progress:
        llm = LLM(
            options.model, options.device, ctx, options.requant, options.graph, progress, draft,
            getattr(options, "mtp_hidden", "post"), parallel,
        )  # fmt: skip
    for name, error in llm.requant_errors.items():
        print(f"{name}: relative RMS error {error:.4f} in INT4", file=sys.stderr)
    return llm


class Progress:
    """A bar per stage on a terminal's standard error, a line per stage elsewhere."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._stage = ""

    def __enter__(self) -> Callable[[str, int, int], None]:
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
            in_bytes = stage == "loading weights"
            self._bar = tqdm(
                desc=stage, total=total, unit="B" if in_bytes else "", unit_scale=in_bytes, leave=False, disable=None
            )
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
