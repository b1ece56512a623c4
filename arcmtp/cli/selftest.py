"""`arcmtp selftest`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `selftest`."""
    selftest = commands.add_parser("selftest", help="check what a device computes, and write a file for an issue")
    selftest.add_argument("--device", metavar="D", help="the device to test, as `arcmtp devices` lists it")
    selftest.add_argument("--only", metavar="PART,…", help="run these parts, or groups of parts, alone (see --list)")
    selftest.add_argument("--list", action="store_true", help="list the parts and end")
    selftest.add_argument(
        "--output", metavar="FILE", type=Path,
        help="where the JSON goes (default: arcmtp-selftest-DEVICE-DATE.json in this folder)",
    )  # fmt: skip
    selftest.add_argument("--clear", action="store_true", help="forget what earlier selftests found, and end")
    selftest.set_defaults(run=_selftest)


def _selftest(options: argparse.Namespace) -> int:
    """Status 1 if a part failed."""
    from arcmtp.cli.loading import ProgressBar
    from arcmtp.runtime import verdict
    from arcmtp.selftest.registry import PARTS, chosen
    from arcmtp.selftest.report import summary
    from arcmtp.selftest.session import selftest

    if options.list:
        print("\n".join(f"{part.name:<16} {part.group:<10} {part.what}" for part in PARTS))
        return 0
    if options.clear:
        verdict.forget()
        return 0
    parts = chosen(options.only.split(",") if options.only is not None else [])
    with ProgressBar() as bar:
        progress = bar if sys.stderr.isatty() else _quiet
        report, file = selftest(parts, options.device, options.output, progress, _tell)
    print(f"{summary(report)}\nwritten to {file}: please attach it to your issue")
    return int(bool(report.failed))


def _tell(line: str) -> None:
    """A line above the progress bar."""
    tqdm.write(line)
    sys.stdout.flush()


def _quiet(stage: str, done: int, total: int) -> None:
    """No progress, where standard error is no terminal."""
