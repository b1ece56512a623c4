"""`arcmtp inspect`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arcmtp.cli.options import add_cache_option, add_kv_option, integer
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers
    from arcmtp.gguf import GGUF


def add(commands: SubParsers) -> None:
    """Add the command `inspect`."""
    inspect = commands.add_parser("inspect", help="what a model file is, and which card runs it how")
    inspect.add_argument(
        "file", metavar="FILE", nargs="?", help="a GGUF file, or hf:OWNER/NAME:QUANT (default: the bundled tiny model)"
    )
    inspect.add_argument(
        "-c", "--ctx", metavar="N", type=integer(1), help="tokens of context (default 8192, or what a card holds)"
    )
    inspect.add_argument(
        "--parallel", metavar="N", type=integer(1), default=1, help="sequences with a context each (default 1)"
    )
    inspect.add_argument("--requant", choices=["int4"], help="as if the large matrices were loaded in 4-bit weights")
    add_kv_option(inspect)
    add_cache_option(inspect)
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    """Status 1 if arcmtp does not run the file."""
    import dataclasses
    import json

    from arcmtp.inspect.report import inspect
    from arcmtp.inspect.text import as_text

    with opened(options.file) as gguf:
        report = inspect(gguf, options.ctx, options.parallel, options.requant, options.kv_type, options.cache_mib)
    if options.file:
        report = dataclasses.replace(report, file=options.file)
    print(json.dumps(dataclasses.asdict(report)) if options.json else as_text(report))
    return int(report.refused is not None)


@contextmanager
def opened(name: str | None) -> Iterator[GGUF]:
    """A file, or a model of a hub, of which the header alone is downloaded."""
    from arcmtp.engine.llm import bundled_model
    from arcmtp.gguf import GGUF

    if name is None or not name.startswith("hf:"):
        yield GGUF(name or bundled_model())
        return
    from arcmtp.hub import HubName, Repository

    parsed = HubName.parse(name)
    repository = Repository.open(parsed.repository)
    if parsed.quant is None:
        names = ", ".join(model.name for model in repository.models)
        raise ArcmtpError(f"{name}: is a repository; expected a model in it, {name}:QUANT, where QUANT is of {names}")
    with repository.header(repository.find(parsed.quant)) as gguf:
        yield gguf
