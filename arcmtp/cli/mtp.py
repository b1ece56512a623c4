"""`arcmtp mtp` and its sub-commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli.loading import ProgressBar

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `mtp`."""
    mtp = commands.add_parser("mtp", help="take the MTP block out of a file, put it into another")
    kinds = mtp.add_subparsers(required=True, metavar="NAME")
    extract = kinds.add_parser("extract", help="write the MTP block of a file as a file of its own")
    extract.add_argument("file", metavar="IN", type=Path, help="a GGUF file with an MTP block")
    extract.set_defaults(run=_extract)
    merge = kinds.add_parser("merge", help="put an MTP block into a file that has none")
    merge.add_argument("trunk", metavar="TRUNK", type=Path, help="a GGUF file without an MTP block")
    merge.add_argument("donor", metavar="DONOR", type=Path, help="one of the same model with it; whole or extracted")
    merge.set_defaults(run=_merge)
    for parser in (extract, merge):
        parser.add_argument("out", metavar="OUT", type=Path, help="the file to write; another than those read")


def _extract(options: argparse.Namespace) -> None:
    from arcmtp.model.mtp_files import extract

    with ProgressBar() as progress:
        extract(options.file, options.out, progress)
    _print_size(options.out)


def _merge(options: argparse.Namespace) -> None:
    from arcmtp.model.mtp_files import merge

    with ProgressBar() as progress:
        merge(options.trunk, options.donor, options.out, progress)
    _print_size(options.out)


def _print_size(out: Path) -> None:
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
