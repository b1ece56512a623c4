"""`arcmtp generate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcmtp.cli.loading import load, open_model, read_files, read_text
from arcmtp.cli.options import (
    Parser,
    add_draft_option,
    add_model_options,
    add_mtp_options,
    add_sampling_options,
    integer,
    sampling_options,
    unicode_text,
)
from arcmtp.errors import ArcmtpError, naming
from arcmtp.runtime.files import OutputFile

if TYPE_CHECKING:
    from arcmtp import LLM, Constraint, Generation, Statistics
    from arcmtp.cli.options import SubParsers
    from arcmtp.engine.model_file import ModelFile
    from arcmtp.engine.prompts import Prompt
    from arcmtp.engine.request import Request
    from arcmtp.engine.sampling import SamplingOptions
    from arcmtp.runtime.graphs import GraphChoice


_GBNF = re.compile(r"^\s*root\s*::=", re.MULTILINE)


def add(commands: SubParsers) -> None:
    """Add the command `generate`."""
    generate = commands.add_parser("generate", help="continue a prompt")
    add_model_options(generate)
    _add_prompt_options(generate)
    generate.add_argument(
        "--logprobs", metavar="N", type=integer(0), default=0, help="with --json: the N likeliest tokens per position"
    )
    generate.add_argument(
        "--stop", metavar="TEXT", type=unicode_text, action="append", default=[],
        help="end before this text; may be repeated",
    )  # fmt: skip
    _add_constraint_options(generate)
    generate.add_argument("--json", action="store_true", help="print one JSON object at the end")
    add_draft_option(generate)
    add_mtp_options(generate)
    generate.add_argument(
        "--draft-log", metavar="FILE", type=Path, help="write the latest draft calls there, a line of JSON each"
    )
    add_sampling_options(generate)
    generate.set_defaults(run=_generate)


def _add_constraint_options(parser: Parser) -> None:
    constraint = parser.add_mutually_exclusive_group()
    constraint.add_argument(
        "--json-schema",
        metavar="FILE",
        type=Path,
        help="write JSON that the schema in FILE allows (- for standard input)",
    )
    constraint.add_argument(
        "--grammar", metavar="FILE", type=Path,
        help="write text that the grammar in FILE allows: GBNF if it has a rule root, else Lark with a rule start",
    )  # fmt: skip


def _add_prompt_options(parser: Parser) -> None:
    prompt = parser.add_mutually_exclusive_group(required=True)
    prompt.add_argument("-p", "--prompt", metavar="TEXT", type=unicode_text, help="the prompt")
    prompt.add_argument("-f", "--file", metavar="FILE", type=Path, help="a file with the prompt (- for standard input)")
    parser.add_argument(
        "-n", "--max-tokens", metavar="N", type=integer(1), default=128, help="tokens at most (default 128)"
    )
    parser.add_argument("--raw", action="store_true", help="the text as it is, not as a message of a chat")
    parser.add_argument("--system", metavar="TEXT", type=unicode_text, help="a system message before the prompt's")
    parser.add_argument("--no-think", action="store_true", help="an answer without reasoning, if the template can")


def _generate(options: argparse.Namespace) -> None:
    if options.logprobs and not options.json:
        raise ArcmtpError("--logprobs needs --json, which shows them")
    constraint, prompt, sampling = _constraint(options), _prompt(options), sampling_options(options)
    file = open_model(options)
    if constraint is not None:
        _check_compiles(constraint, options.json_schema or options.grammar, file)
    with ExitStack() as stack:
        request = replace(_request(options, file, prompt, sampling), constraint=constraint)
        draft_log = options.draft_log and stack.enter_context(OutputFile(options.draft_log, read_files(options, file)))
        llm = stack.enter_context(load(options, options.ctx, options.draft, file=file))
        stream = llm.stream_request(request)
        try:
            for chunk in stream:
                if not options.json:
                    print(chunk.text, end="", flush=True)
        except KeyboardInterrupt:  # it is shown as far as it went
            _finish(options, stream.result, llm, draft_log)
            raise
        _finish(options, stream.result, llm, draft_log)


def _request(options: argparse.Namespace, file: ModelFile, prompt: Prompt, sampling: SamplingOptions) -> Request:
    """What is asked of the model, checked as far as its file alone can tell."""
    from arcmtp.engine.request import Request
    from arcmtp.engine.sampling import Sampler

    Sampler(sampling, file.config.vocab)  # which refuses biases of tokens that there are not
    prompting = file.prompting(file.config.usable_context(options.ctx))
    template: dict[str, Any] = {"enable_thinking": False} if options.no_think else {}
    ids = prompting.checked(prompting.ids(prompt, **template))
    return Request(ids, options.max_tokens, options.logprobs, sampling, stop=options.stop)


def _constraint(options: argparse.Namespace) -> Constraint | None:
    """What the text must keep to, from the file that is named; errors name it."""
    path = options.json_schema or options.grammar
    if path is None:
        return None
    if str(path) == "-" and str(options.file) == "-":
        raise ArcmtpError("-: standard input is the prompt already; expected another file")
    from arcmtp.constraint.constraint import MAX_BYTES, Constraint

    text = read_text(path, MAX_BYTES)
    if options.json_schema:
        return Constraint.json_schema(text, str(path))
    return (Constraint.gbnf if _GBNF.search(text) else Constraint.lark)(text, str(path))


def _check_compiles(constraint: Constraint, path: Path, file: ModelFile) -> None:
    from arcmtp.constraint.grammars import Grammars

    with naming(path):
        Grammars(file.tokenizer).matcher(constraint)


def _prompt(options: argparse.Namespace) -> Prompt:
    """The text as it is, or the messages of a chat."""
    prompt = options.prompt if options.file is None else read_text(options.file)
    if options.raw:
        if options.system is not None or options.no_think:
            raise ArcmtpError("--system and --no-think are for messages of a chat, --raw is none")
        return str(prompt)
    system = [] if options.system is None else [{"role": "system", "content": options.system}]
    return [*system, {"role": "user", "content": prompt}]


def _finish(options: argparse.Namespace, result: Generation, llm: LLM, draft_log: OutputFile | None) -> None:
    """Show what follows the text, and write the draft calls."""
    if options.json:
        fields = dataclasses.asdict(result)
        fields["stats"] = fields.pop("statistics")
        print(json.dumps(fields))
    else:
        print()
        for line in _statistics(result.statistics, llm.graph_choice):
            print(line, file=sys.stderr)
    if draft_log:
        draft_log.write("".join(json.dumps(dataclasses.asdict(call)) + "\n" for call in result.draft_calls))


def _statistics(s: Statistics, choice: GraphChoice | None) -> list[str]:
    measured = ""
    if choice:
        times = f"{choice.eager_us:.0f} µs by launches, {choice.graph_us:.0f} µs by a graph"
        measured = f"; a step was measured once: {times}"
    bandwidth = "" if s.gigabytes_per_second is None else f", {s.gigabytes_per_second:.2f} GB/s"
    lines = [
        f"prompt {s.prompt_tokens} tokens, {s.prompt_tokens_per_second:.1f} tokens/s; "
        f"decode {s.completion_tokens} tokens, {s.decode_tokens_per_second:.1f} tokens/s{bandwidth} "
        f"({s.bytes_per_token / 1e6:.1f} MB a token, {s.launches_per_cycle} launches a cycle); "
        f"load {s.load_seconds:.1f} s; peak {s.peak_memory_bytes / 2**20:.0f} MiB{measured}"
    ]
    if s.graph_replays:
        lines.append(
            f"graphs: {s.graph_replays} replays, {s.host_us_per_replay:.1f} µs of the host each, "
            f"{s.graph_captures} captures; {s.bytes_to_host_per_token:.0f} bytes a token to the host"
        )
    if s.draft:
        lines.append(f"drafts: {s.draft}")
    if s.masks:
        lines.append(f"constraint: {s.masks.us_per_token:.0f} µs of the host a token, {s.masks.share:.1%} of decoding")
    return lines
