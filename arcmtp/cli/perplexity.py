"""`arcmtp perplexity`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli.loading import ProgressBar, load, open_model, read_text
from arcmtp.cli.options import add_model_options

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers

DEFAULT_WINDOW = 512  # tokens, as llama-perplexity


def add(commands: SubParsers) -> None:
    """Add the command `perplexity`."""
    parser = commands.add_parser("perplexity", help="perplexity of a text, as llama-perplexity computes it")
    add_model_options(parser, context_help=f"tokens of a window (default {DEFAULT_WINDOW})")
    parser.add_argument("-f", "--file", metavar="TEXT", type=Path, required=True, help="the text")
    parser.set_defaults(run=_perplexity)


def _perplexity(options: argparse.Namespace) -> None:
    from arcmtp.engine.perplexity import check_windows, perplexity

    window = DEFAULT_WINDOW if options.ctx is None else options.ctx
    file = open_model(options)
    ids = file.tokenizer.encode(read_text(options.file))
    check_windows(len(ids), window, file.config.usable_context(window))
    with load(options, window, file=file) as llm, ProgressBar() as progress:
        result = perplexity(llm, ids, window, lambda done, total: progress("windows", done, total))
    print(f"perplexity {result.value:.4f} +/- {result.error:.4f} ({result.tokens} tokens, {result.windows} windows)")
