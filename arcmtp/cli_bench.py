"""`arcmtp bench` and its sub-commands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arcmtp.cli_common import Parser, Progress, add_model_options, integer, integers, load
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    SubParsers = argparse._SubParsersAction[Parser]


def add_bench(commands: SubParsers) -> None:
    """Add the command `bench`; without a sub-command it measures what llama-bench does."""
    bench = commands.add_parser("bench", help="prompt and decoding speed, as llama-bench measures it")
    add_model_options(bench, context_help=None)
    bench.add_argument("-p", "--prompt", metavar="N", type=integer(0), default=512, help="prompt tokens (default 512)")
    bench.add_argument("-n", "--decode", metavar="N", type=integer(0), default=128, help="steps (default 128)")
    bench.add_argument("-r", "--repetitions", metavar="N", type=integer(1), default=5, help="of each test (default 5)")
    bench.add_argument(
        "--depth", metavar="N,N…", type=integers, default=[0], help="tokens of context before each test (default 0)"
    )
    bench.add_argument("-o", "--output", choices=["md", "json", "csv"], default="md", help="form (default md)")
    bench.set_defaults(run=_bench)
    others = bench.add_subparsers(title="other benchmarks", dest="benchmark", metavar="NAME")
    _add_mtp(others)


def check_place(options: argparse.Namespace, arguments: list[str]) -> None:
    """Refuse options of `bench` before the name of a sub-command, which has its own: they would be lost."""
    name = getattr(options, "benchmark", None)
    if name and arguments[1] != name:
        raise ArcmtpError(f"options belong behind the name: arcmtp bench {name} {arguments[1]}")


def _add_mtp(others: SubParsers) -> None:
    mtp = others.add_parser("mtp", help="speed by draft length, over nine classes of requests")
    add_model_options(mtp)
    mtp.add_argument(
        "-n", "--max-tokens", metavar="N", type=integer(1), default=192, help="tokens a request at most (default 192)"
    )
    mtp.add_argument(
        "--draft", metavar="N,N…", type=integers, default=[0, 1, 2, 3], help="draft lengths (default 0,1,2,3)"
    )
    mtp.add_argument("-r", "--repetitions", metavar="N", type=integer(1), default=3, help="of each (default 3)")
    mtp.add_argument("-o", "--output", choices=["md", "json"], default="md", help="form (default md)")
    mtp.set_defaults(run=_mtp)


def _bench(options: argparse.Namespace) -> None:
    from arcmtp.engine.bench import as_text, bench, needed_context

    context = needed_context(options.prompt, options.decode, options.depth)
    with load(options, context) as llm, Progress() as progress:
        results = bench(llm, options.prompt, options.decode, options.repetitions, options.depth, progress)
    print(as_text(results, options.output))


def _mtp(options: argparse.Namespace) -> int:
    from arcmtp.engine.bench_mtp import bench_mtp, prompts
    from arcmtp.engine.bench_mtp_text import as_json, as_markdown

    with load(options, options.ctx, max(options.draft)) as llm, Progress() as progress:
        report = bench_mtp(llm, prompts(), options.max_tokens, options.draft, options.repetitions, progress)
    print(as_json(report) if options.output == "json" else as_markdown(report))
    return int(bool(report.differences()))
