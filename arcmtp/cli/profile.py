"""`arcmtp profile`."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from arcmtp.cli.loading import ProgressBar, load, model_path, open_model, read_files
from arcmtp.cli.options import add_draft_option, add_model_options, add_mtp_options, integer, unicode_text

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers
    from arcmtp.engine.model_file import ModelFile

DEFAULT_REQUEST = "code_python"  # one of the requests of `arcmtp bench mtp`


def add(commands: SubParsers) -> None:
    """Add the command `profile`."""
    profile = commands.add_parser("profile", help="where the time of a generation goes")
    add_model_options(profile)
    prompt = profile.add_mutually_exclusive_group()
    prompt.add_argument(
        "-p", "--prompt", metavar="TEXT", type=unicode_text, help="the prompt (default: a request for Python code)"
    )
    prompt.add_argument("--prompt-tokens", metavar="N", type=integer(1), help="a prompt of so many random tokens")
    profile.add_argument("--raw", action="store_true", help="the text as it is, not as a message of a chat")
    profile.add_argument(
        "-n", "--max-tokens", metavar="N", type=integer(8), default=128, help="tokens at most (default 128)"
    )
    add_draft_option(profile)
    add_mtp_options(profile)
    for option, text in (
        ("--json", "write everything that was found, as arcmtp/profile/schema.json says"),
        ("--trace", "write the spans of host and device, for ui.perfetto.dev"),
        ("--html", "write a page with charts"),
    ):
        profile.add_argument(option, metavar="FILE", type=Path, help=text)
    profile.set_defaults(run=_profile)


def _profile(options: argparse.Namespace) -> None:
    from arcmtp.runtime.files import OutputFile

    with ExitStack() as stack:
        file = open_model(options)
        inputs = read_files(options, file)
        outputs = [
            path and stack.enter_context(OutputFile(path, inputs))
            for path in (options.json, options.trace, options.html)
        ]
        prompt = _prompt(options, file)
        llm = stack.enter_context(load(options, options.ctx, options.draft, file=file))
        progress = stack.enter_context(ProgressBar())

        from arcmtp.profile.page import as_html
        from arcmtp.profile.profiler import profile
        from arcmtp.profile.recordings import Request
        from arcmtp.profile.report import as_json
        from arcmtp.profile.tables import as_text
        from arcmtp.profile.trace import as_trace

        stop_ids = () if options.prompt_tokens else llm.tokenizer.eos_ids
        request = Request(prompt, options.max_tokens, llm.draft, stop_ids)
        report, recordings = profile(llm, model_path(options), request, progress)
        print(as_text(report))
        texts = as_json(report), as_trace(recordings, llm.network), as_html(report, recordings, llm.network)
        for output, text in zip(outputs, texts, strict=True):
            if output:
                output.write(text)


def _prompt(options: argparse.Namespace, file: ModelFile) -> list[int]:
    """The token ids of the prompt, for which there is room."""
    from arcmtp.bench.mtp import prompts
    from arcmtp.bench.speed import random_ids
    from arcmtp.profile.profiler import check_room

    context = file.config.usable_context(options.ctx)
    if options.prompt_tokens:
        check_room(options.prompt_tokens, options.max_tokens, context)
        return random_ids(file.tokenizer, options.prompt_tokens)
    prompting, prompt = file.prompting(context), options.prompt
    if prompt is None:
        prompt = prompts()[DEFAULT_REQUEST]
    as_chat = prompting.has_chat_template and not options.raw
    ids = prompting.ids([{"role": "user", "content": prompt}] if as_chat else prompt)
    check_room(len(ids), options.max_tokens, context)
    return ids
