"""`arcmtp inspect`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arcmtp.cli.options import integer

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `inspect`."""
    inspect = commands.add_parser("inspect", help="what a model file is, and which card runs it how")
    inspect.add_argument("file", metavar="FILE", nargs="?", help="a GGUF file (default: the bundled tiny model)")
    inspect.add_argument(
        "-c", "--ctx", metavar="N", type=integer(1), help="tokens of context (default 8192, or what a card holds)"
    )
    inspect.add_argument(
        "--parallel", metavar="N", type=integer(1), default=1, help="sequences with a context each (default 1)"
    )
    inspect.add_argument("--requant", choices=["int4"], help="as if the large matrices were loaded in 4-bit weights")
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    """Status 1 if arcmtp does not run the file."""
    import dataclasses
    import json

    from arcmtp.engine.llm import bundled_model
    from arcmtp.gguf import GGUF
    from arcmtp.inspect.report import inspect
    from arcmtp.inspect.text import as_text

    report = inspect(GGUF(options.file or bundled_model()), options.ctx, options.parallel, options.requant)
    print(json.dumps(dataclasses.asdict(report)) if options.json else as_text(report))
    return int(report.refused is not None)
