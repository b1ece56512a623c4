"""`arcmtp mtp` and its sub-commands."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli.loading import ProgressBar, bring_models
from arcmtp.cli.options import integer

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `mtp`."""
    mtp = commands.add_parser("mtp", help="MTP blocks as files, and tokens counted for drafts")
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
    _add_count_tokens(kinds)


def _add_count_tokens(kinds: SubParsers) -> None:
    count = kinds.add_parser("count-tokens", help="count the tokens of texts, for --draft-vocab")
    count.add_argument("corpus", metavar="CORPUS", nargs="+", type=Path, help="a text, or a folder of texts")
    count.add_argument("-m", "--model", metavar="FILE", help="a GGUF file with the tokenizer (default: bundled)")
    count.add_argument("-o", "--output", metavar="FILE", type=Path, help="the file to write (default: standard output)")
    count.add_argument("-n", "--count", metavar="N", type=integer(1), help="the N commonest tokens (default: all)")
    count.set_defaults(run=_count_tokens)


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


def _count_tokens(options: argparse.Namespace) -> None:
    from arcmtp.engine.llm import bundled_model
    from arcmtp.gguf import GGUF
    from arcmtp.model.token_counts import TokenCounts
    from arcmtp.model.tokenizer import Tokenizer
    from arcmtp.runtime.files import OutputFile

    bring_models(options)
    tokenizer = Tokenizer.from_gguf(GGUF(options.model or bundled_model()))
    with ExitStack() as stack:
        output = options.output and stack.enter_context(OutputFile(options.output, options.corpus))
        counts = TokenCounts(tokenizer)
        with ProgressBar() as progress:
            counts.add(options.corpus, progress)
        text = counts.as_text(options.count)
        output.write(text) if output else print(text, end="")
    print(counts.coverage(), file=sys.stderr)


def _print_size(out: Path) -> None:
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
