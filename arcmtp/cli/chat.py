"""`arcmtp chat`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from arcmtp.cli.loading import load, model_path, open_model
from arcmtp.cli.options import (
    add_cache_options,
    add_draft_option,
    add_model_options,
    add_mtp_options,
    add_sampling_options,
    integer,
    sampling_options,
    unicode_text,
)
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp.chat.screen import Screen
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `chat`."""
    chat = commands.add_parser("chat", help="talk with a model")
    add_model_options(chat)
    chat.add_argument("--system", metavar="TEXT", type=unicode_text, help="a system message before all others")
    chat.add_argument("--no-think", action="store_true", help="answers without reasoning, if the template can")
    chat.add_argument(
        "-n", "--max-tokens", metavar="N", type=integer(1),
        help="tokens of an answer at most (default: what the context holds)",
    )  # fmt: skip
    add_draft_option(chat)
    add_mtp_options(chat)
    add_cache_options(chat)
    add_sampling_options(chat, "sampling (default: --temp 1 --top-p 0.95 --top-k 20)")
    chat.set_defaults(run=_chat)


def _chat(options: argparse.Namespace) -> None:
    from arcmtp.chat.conversation import Asking, Conversation
    from arcmtp.chat.session import Session
    from arcmtp.engine.sampling import CHAT

    template: dict[str, Any] = {"enable_thinking": False} if options.no_think else {}
    asking = Asking(sampling_options(options, CHAT), options.max_tokens, template)
    file = open_model(options)
    if not file.prompting(file.config.usable_context(options.ctx)).has_chat_template:
        raise ArcmtpError(f"{model_path(options)}: has no chat template; arcmtp generate --raw takes it")
    with load(options, options.ctx, options.draft, file=file) as llm:
        screen = _screen(f"{model_path(options).name}, context {llm.context} tokens")
        Session(Conversation(llm, asking, options.system), screen).run()


def _screen(title: str) -> Screen:
    """A terminal where there is one to read from and to write to."""
    if sys.stdin and sys.stdin.isatty() and sys.stdout.isatty():
        from arcmtp.chat.terminal import TerminalScreen

        terminal = TerminalScreen()
        terminal.note(f"{title}; /help lists commands, Ctrl-D quits")
        return terminal
    from arcmtp.chat.screen import PlainScreen

    return PlainScreen()
