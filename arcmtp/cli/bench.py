"""`arcmtp bench` and its sub-commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli.common import Parser, Progress, add_model_options, integer, integers, load
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp import LLM
    from arcmtp.bench.compare import Model

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
    _add_compare(bench)
    bench.set_defaults(run=_bench)
    others = bench.add_subparsers(title="other benchmarks", dest="benchmark", metavar="NAME")
    _add_mtp(others)
    _add_ops(others)
    _add_serve(others)


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
    _add_compare(mtp)
    mtp.set_defaults(run=_mtp)


def _add_ops(others: SubParsers) -> None:
    ops = others.add_parser("ops", help="each operator at the shapes of Qwen3.6-35B-A3B")
    ops.add_argument("--device", metavar="D", help="a dpctl filter string such as cpu or level_zero:gpu:0")
    ops.add_argument("--only", metavar="TEXT", default="", help="cases whose operator and shape contain it")
    ops.add_argument("-r", "--repetitions", metavar="N", type=integer(1), default=12, help="of each (default 12)")
    ops.add_argument("-o", "--output", choices=["md", "json"], default="md", help="form (default md)")
    _add_compare(ops)
    ops.set_defaults(run=_ops)


def _add_compare(parser: Parser) -> None:
    parser.add_argument(
        "--compare", metavar=("A.json", "B.json"), nargs=2, type=Path,
        help="measure nothing: say how much faster B is than A, which -o json wrote",
    )  # fmt: skip


def _add_serve(others: SubParsers) -> None:
    serve = others.add_parser("serve", help="waiting times and throughput of any OpenAI-compatible server")
    serve.add_argument("url", metavar="URL", nargs="?", help="such as http://127.0.0.1:8080; without a path it is /v1")
    serve.add_argument(
        "--concurrency", metavar="N,N…", type=integers, default=[1, 2, 4], help="requests at once (default 1,2,4)"
    )
    serve.add_argument("--requests", metavar="N", type=integer(1), default=16, help="of each (default 16)")
    serve.add_argument(
        "-p", "--prompt-tokens", metavar="N", type=integer(1), default=256, help="of a prompt, about (default 256)"
    )
    serve.add_argument(
        "-n", "--max-tokens", metavar="N", type=integer(1), default=128, help="of an answer (default 128)"
    )
    serve.add_argument("--seed", metavar="N", type=integer(0), default=0, help="chooses the prompts' words (default 0)")
    serve.add_argument("--model", metavar="NAME", help="towards the server (default: the first that it lists)")
    serve.add_argument("--api-key-file", metavar="FILE", type=Path, help="its first line comes with each request")
    serve.add_argument("-o", "--output", choices=["md", "json"], default="md", help="form (default md)")
    _add_compare(serve)
    serve.set_defaults(run=_serve)


def _bench(options: argparse.Namespace) -> None:
    from arcmtp.bench.compare import compare
    from arcmtp.bench.speed import as_text, bench, needed_context

    if options.compare:
        print(compare("llama", *options.compare))
        return
    context = needed_context(options.prompt, options.decode, options.depth)
    with load(options, context) as llm, Progress() as progress:
        results = bench(llm, options.prompt, options.decode, options.repetitions, options.depth, progress)
        model = _model(options, llm)
    print(as_text(results, options.output, model))


def _mtp(options: argparse.Namespace) -> int:
    from arcmtp.bench.compare import compare
    from arcmtp.bench.mtp import bench_mtp, prompts
    from arcmtp.bench.mtp_text import as_json, as_markdown

    if options.compare:
        print(compare("mtp", *options.compare))
        return 0
    with load(options, options.ctx, max(options.draft)) as llm, Progress() as progress:
        report = bench_mtp(llm, prompts(), options.max_tokens, options.draft, options.repetitions, progress)
        model = _model(options, llm)
    print(as_json(report, model) if options.output == "json" else as_markdown(report))
    return int(bool(report.differences()))


def _ops(options: argparse.Namespace) -> None:
    from arcmtp.bench.compare import compare

    if options.compare:
        print(compare("ops", *options.compare))
        return
    from arcmtp.bench.ops import as_text, bench_ops
    from arcmtp.runtime.device import Device

    with Progress() as progress:
        report = bench_ops(Device(options.device), options.only, options.repetitions, progress)
    print(as_text(report, options.output))


def _model(options: argparse.Namespace, llm: LLM) -> Model:
    """Which model a result is of."""
    from arcmtp.bench.compare import Model
    from arcmtp.engine.llm import BUNDLED_MODEL

    return Model(Path(options.model or BUNDLED_MODEL).name, llm.network.weights.nbytes)


def _serve(options: argparse.Namespace) -> int:
    from arcmtp.bench.compare import compare

    if options.compare:
        print(compare("serve", *options.compare))
        return 0
    if options.url is None:
        raise ArcmtpError("URL is missing, such as http://127.0.0.1:8080 (see arcmtp bench serve --help)")
    from arcmtp.bench.serve import Load, as_text, bench_serve
    from arcmtp.serve.options import read_keys

    load = Load(options.concurrency, options.requests, options.prompt_tokens, options.max_tokens, options.seed)
    key = read_keys(options.api_key_file)[0] if options.api_key_file else None
    with Progress() as progress:
        report = bench_serve(options.url, load, options.model, key, progress)
    print(as_text(report, options.output))
    return int(report.failed())
