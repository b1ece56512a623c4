"""The `arcmtp` command: parse, call, print."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from arcmtp import __version__
from arcmtp.cli.bench import add_bench, check_place
from arcmtp.cli.common import Parser, Progress, add_model_options, integer, load
from arcmtp.cli.profile import add_profile
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp import Generation, SamplingOptions, Statistics
    from arcmtp.runtime.graphs import Choice

EXIT_ERROR, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 2, 130, 141  # the last two as shells report SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows what it can
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        status: int | None = options.run(options)
        print(end="", flush=True)
    except ArcmtpError as error:
        print(f"arcmtp: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:  # from writing: what is read is checked where it is opened
        # Python flushes standard output once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return EXIT_CLOSED_PIPE
        print(f"arcmtp: standard output: {error.strerror}", file=sys.stderr)
        return EXIT_ERROR
    return status or 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    options = _parser().parse_args(arguments)
    check_place(options, list(arguments))
    if file := getattr(options, "config", None):  # its options come first, so that those of the command line win
        from arcmtp.serve.options import config_arguments

        command, *others = arguments
        configured = config_arguments(file)
        try:
            _parser().parse_args([command, *configured])
        except ArcmtpError as error:
            raise ArcmtpError(f"{file}: {error}") from None
        options = _parser().parse_args([command, *configured, *others])
    return options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="arcmtp", description="Qwen3.6-35B-A3B on Intel Arc through SYCL.")
    parser.add_argument("--version", action="version", version=f"arcmtp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    devices = commands.add_parser("devices", help="list the SYCL devices and the card profiles that apply")
    devices.set_defaults(run=_devices)

    doctor = commands.add_parser("doctor", help="check this machine and say what to mend")
    doctor.add_argument("-m", "--model", metavar="FILE", help="a GGUF file: adds what it takes of the device's memory")
    doctor.add_argument(
        "-c", "--ctx", metavar="N", type=integer(1), help="with -m: tokens of context (default 8192 or its limit)"
    )
    doctor.add_argument("--device", metavar="D", help="the device to try, as `arcmtp devices` lists it")
    doctor.add_argument("--json", action="store_true", help="print one JSON list of all findings")
    doctor.set_defaults(run=_doctor)

    generate = commands.add_parser("generate", help="continue a prompt")
    add_model_options(generate)
    prompt = generate.add_mutually_exclusive_group(required=True)
    prompt.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt")
    prompt.add_argument("-f", "--file", metavar="FILE", type=Path, help="a file with the prompt (- for standard input)")
    generate.add_argument(
        "-n", "--max-tokens", metavar="N", type=integer(1), default=128, help="tokens at most (default 128)"
    )
    generate.add_argument("--raw", action="store_true", help="the text as it is, not as a message of a chat")
    generate.add_argument("--system", metavar="TEXT", help="a system message before the prompt's")
    generate.add_argument("--no-think", action="store_true", help="an answer without reasoning, if the template can")
    generate.add_argument(
        "--logprobs", metavar="N", type=integer(0), default=0, help="with --json: the N likeliest tokens per position"
    )
    generate.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="end before this text; may be repeated"
    )
    generate.add_argument("--json", action="store_true", help="print one JSON object at the end")
    _add_draft_options(generate)
    generate.add_argument(
        "--draft-log", metavar="FILE", type=Path, help="write the latest draft calls there, a line of JSON each"
    )
    _add_sampling_options(generate)
    generate.set_defaults(run=_generate)

    serve = commands.add_parser("serve", help="answer OpenAI's HTTP requests")
    add_model_options(serve)
    _add_draft_options(serve)
    _add_serve_options(serve)
    _add_sampling_options(serve, "sampling of requests that do not say (default: --temp 1 --top-p 0.95 --top-k 20)")
    serve.set_defaults(run=_serve)

    perplexity = commands.add_parser("perplexity", help="perplexity of a text, as llama-perplexity computes it")
    add_model_options(perplexity, context_help="tokens of a window (default 512)")
    perplexity.add_argument("-f", "--file", metavar="TEXT", type=Path, required=True, help="the text")
    perplexity.set_defaults(run=_perplexity)

    add_profile(commands)
    add_bench(commands)
    return parser


def _add_draft_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--draft", metavar="N", type=integer(0), default=None,
        help="draft N tokens before each step, 0 to 7 (default 2 if the file has an MTP block); the text is the same",
    )  # fmt: skip
    parser.add_argument(
        "--mtp-hidden", choices=["post", "pre"], default="post",
        help="hidden rows for the MTP block: after (default) or before the final norm",
    )  # fmt: skip


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    for option, kind, default, text in (
        ("--host", str, "127.0.0.1", "where to listen"),
        ("--port", integer(0), 8080, "where to listen; 0: a free one"),
        ("--parallel", integer(1), 4, "requests that are answered side by side, each with --ctx tokens, up to 32"),
        ("--queue", integer(0), 32, "further requests that may wait"),
        ("--body-limit", _positive, 8.0, "MiB of a request's body at most"),
        ("--drain-limit", _positive, 60.0, "seconds that SIGTERM lets requests go on"),
        ("--step-limit", _positive, 60.0, "seconds that a step may take, or 512 tokens of a prompt"),
    ):
        parser.add_argument(option, metavar="X", type=kind, default=default, help=f"{text} (default {default})")
    parser.add_argument("--alias", metavar="NAME", help="the model's name (default: the file's)")
    parser.add_argument("--api-key-file", metavar="FILE", type=Path, help="keys, one a line; requests must bring one")
    parser.add_argument(
        "--insecure-no-key", action=argparse.BooleanOptionalAction, help="let other machines in without a key"
    )
    parser.add_argument(
        "--cors-origin", metavar="URL", action="append", default=[], help="a web page that may call; may be repeated"
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="a TOML file of these options: port = 8080")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _add_sampling_options(
    parser: argparse.ArgumentParser, title: str = "sampling (default: always the likeliest token)"
) -> None:
    """Named like the fields of SamplingOptions, which checks them and knows their defaults."""
    group = parser.add_argument_group(title)
    for option, field, kind, text in (
        ("--temp", "temperature", float, "0 (greedy), or 0.01 to 100; the filters need it"),
        ("--top-k", "top_k", int, "choose among the N likeliest tokens (0: all)"),
        ("--top-p", "top_p", float, "choose among the likeliest tokens that have this probability together (1: all)"),
        ("--min-p", "min_p", float, "choose among tokens at least this fraction as likely as the likeliest (0: all)"),
        ("--repeat-penalty", "repetition_penalty", float, "divides logits of tokens in prompt and text (1: none)"),
        ("--presence-penalty", "presence_penalty", float, "taken from logits of tokens in the text (0: none)"),
        ("--frequency-penalty", "frequency_penalty", float, "the same, for each time that they occur (0: none)"),
        ("--seed", "seed", int, "gives the same text again (default: a new one each time)"),
    ):
        group.add_argument(
            option, dest=field, metavar="N" if kind is int else "X", type=kind, default=argparse.SUPPRESS, help=text
        )
    group.add_argument(
        "--logit-bias", metavar="ID=X", type=_bias, action="append", default=[],
        help="add X (or -inf) to the logit of a token; may be repeated",
    )  # fmt: skip


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=X, a token id and a number") from None


def _sampling_options(options: argparse.Namespace, defaults: SamplingOptions | None = None) -> SamplingOptions:
    from arcmtp.engine.sampling import SamplingOptions

    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(SamplingOptions) if hasattr(options, f.name)}
    return dataclasses.replace(defaults or SamplingOptions(), **{**given, "logit_bias": dict(options.logit_bias)})


def _devices(options: argparse.Namespace) -> None:
    from arcmtp.runtime.devices import format_table, list_devices

    print(format_table(list_devices()))


def _doctor(options: argparse.Namespace) -> int:
    from arcmtp.doctor.machine import Machine
    from arcmtp.doctor.report import PlannedModel, examine, line, summary

    if options.ctx is not None and options.model is None:
        raise ArcmtpError("--ctx needs -m, the file whose memory it is to be planned for")
    model = None if options.model is None else PlannedModel.open(options.model, options.ctx)
    findings = []
    for finding in examine(Machine(), options.device, model):
        findings.append(finding)
        if not options.json:
            print(line(finding), flush=True)
    print(json.dumps([dataclasses.asdict(finding) for finding in findings]) if options.json else summary(findings))
    return int(any(finding.status == "problem" for finding in findings))


def _generate(options: argparse.Namespace) -> None:
    if options.logprobs and not options.json:
        raise ArcmtpError("--logprobs needs --json, which shows them")
    text = options.prompt if options.file is None else _read_text(options.file)
    if options.raw and (options.system is not None or options.no_think):
        raise ArcmtpError("--system and --no-think are for messages of a chat, --raw is none")
    system = [] if options.system is None else [{"role": "system", "content": options.system}]
    prompt = text if options.raw else [*system, {"role": "user", "content": text}]
    template: dict[str, Any] = {"enable_thinking": False} if options.no_think else {}
    sampling = _sampling_options(options)
    with _output(options.draft_log) as draft_log, load(options, options.ctx, options.draft) as llm:
        stream = llm.stream(prompt, options.max_tokens, options.logprobs, sampling, stop=options.stop, **template)
        try:
            for chunk in stream:
                if not options.json:
                    print(chunk.text, end="", flush=True)
        finally:  # an interrupted generation is shown as far as it went
            if options.json:
                _print_json(stream.result)
            else:
                print()
                _print_statistics(stream.result.statistics, llm.graph_choice)
            if draft_log:
                draft_log.writelines(json.dumps(dataclasses.asdict(c)) + "\n" for c in stream.result.draft_calls)


def _output(path: Path | None) -> contextlib.AbstractContextManager[IO[str] | None]:
    """A file to write, opened at once, so that a place that cannot be written to is known before any work."""
    try:
        return contextlib.nullcontext() if path is None else path.open("w", encoding="utf-8")
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a file that can be written") from None


def _serve(options: argparse.Namespace) -> None:
    from arcmtp.engine.llm import BUNDLED_MODEL
    from arcmtp.serve.options import SAMPLING, ServeOptions, bind, read_keys
    from arcmtp.serve.run import serve

    settings = ServeOptions(
        alias=options.alias or Path(options.model or BUNDLED_MODEL).stem,
        host=options.host,
        port=options.port,
        api_keys=read_keys(options.api_key_file) if options.api_key_file else (),
        cors_origins=options.cors_origin,
        queue=options.queue,
        body_mib=options.body_limit,
        drain_seconds=options.drain_limit,
        step_seconds=options.step_limit,
        sampling=_sampling_options(options, SAMPLING),
    )
    with bind(settings, options.insecure_no_key) as listener:
        serve(
            settings, listener, lambda: load(options, options.ctx, options.draft, options.parallel),
            lambda line: print(line, flush=True),
        )  # fmt: skip


def _print_json(result: Generation) -> None:
    fields = dataclasses.asdict(result)
    fields["stats"] = fields.pop("statistics")
    print(json.dumps(fields))


def _print_statistics(s: Statistics, choice: Choice | None) -> None:
    way = ""
    if choice:
        times = f"{choice.eager_us:.0f} µs by launches, {choice.graph_us:.0f} µs by a graph"
        way = f"; a step was measured once: {times}"
    bandwidth = "" if s.gigabytes_per_second is None else f", {s.gigabytes_per_second:.2f} GB/s"
    print(
        f"prompt {s.prompt_tokens} tokens, {s.prompt_tokens_per_second:.1f} tokens/s; "
        f"decode {s.completion_tokens} tokens, {s.decode_tokens_per_second:.1f} tokens/s{bandwidth} "
        f"({s.bytes_per_token / 1e6:.1f} MB a token, {s.launches_per_cycle} launches a cycle); "
        f"load {s.load_seconds:.1f} s; peak {s.peak_memory_bytes / 2**20:.0f} MiB{way}",
        file=sys.stderr,
    )
    misses = "".join(f", {count} of them {reason}" for reason, count in s.graph_misses.items())
    if s.graph_replays:
        print(
            f"graphs: {s.graph_replays} replays, {s.host_us_per_replay:.1f} µs of the host each, "
            f"{s.graph_captures} captures{misses}; {s.bytes_to_host_per_token:.0f} bytes a token to the host",
            file=sys.stderr,
        )
    if s.draft:
        print(f"drafts: {s.draft}", file=sys.stderr)


def _perplexity(options: argparse.Namespace) -> None:
    from arcmtp.engine.perplexity import perplexity

    text, window = _read_text(options.file), 512 if options.ctx is None else options.ctx
    with load(options, window) as llm, Progress() as progress:
        result = perplexity(llm, text, window, lambda done, total: progress("windows", done, total))
    print(f"perplexity {result.value:.4f} +/- {result.error:.4f} ({result.tokens} tokens, {result.windows} windows)")


def _read_text(path: Path) -> str:
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return content.decode()
    except OSError as error:
        raise ArcmtpError(f"{path}: {error.strerror}; expected a text file") from None
    except UnicodeDecodeError as error:
        raise ArcmtpError(f"{path}: byte {error.start} is not UTF-8; expected a UTF-8 text") from None
