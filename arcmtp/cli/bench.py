"""`arcmtp bench` and its sub-commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli import matrix
from arcmtp.cli.loading import ProgressBar, load, model_path, open_model
from arcmtp.cli.options import Parser, add_model_options, add_mtp_options, drafts, integer, integers
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp import LLM
    from arcmtp.bench.compare import Model
    from arcmtp.cli.options import SubParsers

Measure = Callable[[argparse.Namespace], int | None]


def add(commands: SubParsers) -> None:
    """Add the command `bench`; without a sub-command it measures what llama-bench does."""
    bench = commands.add_parser("bench", help="prompt and decoding speed, as llama-bench measures it")
    add_model_options(bench, context_help=None)
    bench.add_argument("-p", "--prompt", metavar="N", type=integer(0), default=512, help="prompt tokens (default 512)")
    bench.add_argument("-n", "--decode", metavar="N", type=integer(0), default=128, help="steps (default 128)")
    bench.add_argument("-r", "--repetitions", metavar="N", type=integer(1), default=5, help="of each test (default 5)")
    bench.add_argument(
        "--depth", metavar="N,N…", type=integers, default=[0], help="tokens of context before each test (default 0)"
    )
    _add_output(bench, "llama", _speed, ["md", "json", "csv"])
    kinds = bench.add_subparsers(title="other benchmarks", dest="benchmark", metavar="NAME")
    _add_mtp(kinds)
    _add_ops(kinds)
    _add_serve(kinds)


def check_place(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Refuse options of `bench` before the name of a sub-command, which has its own: they would be lost."""
    name = getattr(options, "benchmark", None)
    if name and arguments[1] != name:
        raise ArcmtpError(f"options belong behind the name: arcmtp bench {name} {arguments[1]}")


def _add_mtp(kinds: SubParsers) -> None:
    mtp = kinds.add_parser("mtp", help="speed by draft length, over nine classes of requests")
    add_model_options(mtp)
    mtp.add_argument(
        "-n", "--max-tokens", metavar="N", type=integer(1), default=192, help="tokens a request at most (default 192)"
    )
    mtp.add_argument(
        "--draft", metavar="N,N…", type=drafts,
        help="draft lengths, off or auto (default 0,1,2,3,auto; with --matrix off,1,2,3,4,auto)",
    )
    add_mtp_options(mtp)
    mtp.add_argument("-r", "--repetitions", metavar="N", type=integer(1), default=3, help="of each (default 3)")
    matrix.add_options(mtp)
    _add_output(mtp, "mtp", _mtp, ["md", "json", "csv"])


def _add_ops(kinds: SubParsers) -> None:
    ops = kinds.add_parser("ops", help="each operator at the shapes of Qwen3.6-35B-A3B")
    ops.add_argument("--device", metavar="D", help="a dpctl filter string such as cpu or level_zero:gpu:0")
    ops.add_argument("--only", metavar="TEXT", default="", help="cases whose operator and shape contain it")
    ops.add_argument("-r", "--repetitions", metavar="N", type=integer(1), default=12, help="of each (default 12)")
    _add_output(ops, "ops", _ops)


def _add_serve(kinds: SubParsers) -> None:
    serve = kinds.add_parser("serve", help="waiting times and throughput of any OpenAI-compatible server")
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
    _add_output(serve, "serve", _serve)


def _add_output(parser: Parser, kind: str, measure: Measure, forms: Sequence[str] = ("md", "json")) -> None:
    """`--output` and `--compare`, which every benchmark has, and what runs: `measure`, or the comparison."""
    parser.add_argument("-o", "--output", choices=forms, default="md", help="form (default md)")
    parser.add_argument(
        "--compare", metavar=("A.json", "B.json"), nargs=2, type=Path,
        help="measure nothing: say how much faster B is than A, which -o json wrote",
    )  # fmt: skip
    parser.set_defaults(run=partial(_compare_or_measure, kind, measure))


def _compare_or_measure(kind: str, measure: Measure, options: argparse.Namespace) -> int | None:
    if options.compare is None:
        return measure(options)
    from arcmtp.bench.compare import compare

    print(compare(kind, *options.compare))
    return 0


def _speed(options: argparse.Namespace) -> None:
    from arcmtp.bench.speed import as_text, bench, needed_context

    context = needed_context(options.prompt, options.decode, options.depth)
    with load(options, context) as llm, ProgressBar() as progress:
        results = bench(llm, options.prompt, options.decode, options.repetitions, options.depth, progress)
        model = _model(options, llm)
    print(as_text(results, options.output, model))


def _mtp(options: argparse.Namespace) -> int:
    """Status 1 if the tokens depend on the draft length."""
    matrix.check_options(options)
    if options.matrix:
        return matrix.measure(options)
    from arcmtp.bench.mtp import DRAFTS, bench_mtp, most_drafts, prompts, questions
    from arcmtp.bench.mtp_text import as_json, as_markdown

    settings, file = options.draft or DRAFTS, open_model(options)
    context = file.config.usable_context(options.ctx)
    questions(file.prompting(context), context, prompts(), options.max_tokens)
    with load(options, options.ctx, most_drafts(settings), file=file) as llm, ProgressBar() as progress:
        report = bench_mtp(llm, prompts(), options.max_tokens, settings, options.repetitions, progress)
        model = _model(options, llm)
    print(as_json(report, model) if options.output == "json" else as_markdown(report))
    return int(bool(report.differences()))


def _model(options: argparse.Namespace, llm: LLM) -> Model:
    """Which model a result is of."""
    from arcmtp.bench.compare import Model

    return Model(model_path(options).name, llm.network.weights.nbytes)


def _ops(options: argparse.Namespace) -> None:
    from arcmtp.bench.ops import as_text, bench_ops
    from arcmtp.runtime.device import Device

    with ProgressBar() as progress:
        report = bench_ops(Device(options.device), options.only, options.repetitions, progress)
    print(as_text(report, options.output))


def _serve(options: argparse.Namespace) -> int:
    """Status 1 if any request failed."""
    if options.url is None:
        raise ArcmtpError("URL is missing, such as http://127.0.0.1:8080 (see arcmtp bench serve --help)")
    from arcmtp.bench.serve import Load, as_text, bench_serve
    from arcmtp.serve.options import read_keys

    load = Load(options.concurrency, options.requests, options.prompt_tokens, options.max_tokens, options.seed)
    key = read_keys(options.api_key_file)[0] if options.api_key_file else None
    with ProgressBar() as progress:
        report = bench_serve(options.url, load, options.model, key, progress)
    print(as_text(report, options.output))
    return int(report.failed())
