"""Options that several commands have, and what their values may be."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp import SamplingOptions
    from arcmtp.engine.loading import Draft

    SubParsers = argparse._SubParsersAction["Parser"]


MAX_DIGITS = 20  # of an option's number: those of 2**64


class Parser(argparse.ArgumentParser):
    """Takes long options by their whole names only, and reports wrong usage like all bad input: in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # what `--dra` means would change with each new option

    def error(self, message: str) -> NoReturn:
        raise ArcmtpError(f"{message} (see {self.prog} --help)")


def integer(least: int) -> Callable[[str], int]:
    """A parser of whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not _is_number(text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return parse


def unicode_text(argument: str) -> str:
    """Text, which is UTF-8 whatever the locale says."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument  # refused where it is used, with the place


def integers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [integer(0)(part) for part in text.split(",")]


def integer_or_auto(text: str) -> int | Literal["auto"]:
    """A whole number, or "auto"."""
    if text == "auto":
        return "auto"
    if not _is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a whole number from 0 on")
    return int(text)


def drafts(text: str) -> list[Draft]:
    """Draft settings with commas between them: draft lengths, `off`, which is 0, or `auto`."""
    return [0 if part == "off" else integer_or_auto(part) for part in text.split(",")]


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def add_model_options(
    parser: Parser, context_help: str | None = "tokens of context (default 8192, or what model and memory allow)"
) -> None:
    """The options that `arcmtp.cli.loading.load` reads; context_help: None for a command without `--ctx`."""
    parser.add_argument(
        "-m", "--model", metavar="FILE",
        help="a GGUF file, or hf:OWNER/NAME[:QUANT] (arcmtp pull --help); default: the bundled tiny model",
    )  # fmt: skip
    if context_help:
        parser.add_argument("-c", "--ctx", metavar="N", type=integer(1), help=context_help)
    parser.add_argument("--device", metavar="D", help="a dpctl filter string such as cpu or level_zero:gpu:0")
    parser.add_argument(
        "--graph", action=argparse.BooleanOptionalAction,
        help="replay steps as a graph (default: if that is faster, and not on the CPU)",
    )  # fmt: skip
    parser.add_argument(
        "--experts-host", metavar="N|auto", type=integer_or_auto, default="auto",
        help="keep the experts of the last N layers in host memory, read over PCIe (default auto: as few as the "
        "context needs); the text is the same",
    )  # fmt: skip
    parser.add_argument("--requant", choices=["int4"], help="turn the large matrices into 4-bit weights while loading")
    parser.add_argument(
        "--ignore-selftest", action="store_true", help="use also what failed in the device's latest arcmtp selftest"
    )
    add_kv_option(parser)


def kv_type(text: str) -> str:
    """The name of a `KvFormat`. Raises ArcmtpError for another one."""
    from arcmtp.formats.kv_cache import kv_format

    return kv_format(text).name


def add_kv_option(parser: Parser) -> None:
    """`--kv-type`."""
    parser.add_argument(
        "--kv-type", metavar="TYPE", type=kv_type, default="f16",
        help="keep keys and values as f16 (default), q8_0, turbo4 or turbo3, which take 1/2 to 1/5 of the memory",
    )  # fmt: skip


def add_cache_option(parser: Parser) -> None:
    """`--cache-mib`."""
    parser.add_argument(
        "--cache-mib", metavar="N", type=integer(0),
        help="MiB of device memory for checkpoints, from which prompts with a known beginning go on (default 256, or a "
        "quarter of what is left; 0: none); the text is the same",
    )  # fmt: skip


def add_cache_options(parser: Parser) -> None:
    """What checkpoints may take, as the fields of `LLM` are named."""
    add_cache_option(parser)
    parser.add_argument(
        "--cache-host-mib", metavar="N", type=integer(0),
        help="MiB of host memory for further checkpoints (default 2048, or a quarter of what is left; 0: none)",
    )  # fmt: skip


def add_draft_option(parser: Parser) -> None:
    """`--draft`."""
    parser.add_argument(
        "--draft", metavar="N|auto", type=integer_or_auto,
        help="draft N tokens before each step, 0 to 7, or as many as are fastest (default auto if there is an MTP "
        "block); the text is the same",
    )  # fmt: skip


def add_mtp_options(parser: Parser) -> None:
    """What drafts come from, as the fields of `LLM` are named."""
    parser.add_argument(
        "--draft-p-min", metavar="P", type=float, default=0.0,
        help="draft no further behind a draft less likely than P, 0 to 1 (default 0); the text is the same",
    )  # fmt: skip
    parser.add_argument(
        "--draft-vocab", metavar="full|N|FILE", type=_draft_vocab, default="full",
        help="draft all tokens (default), the N lowest ids, or the ids in FILE (arcmtp mtp count-tokens); "
        "the text is the same",
    )  # fmt: skip
    parser.add_argument(
        "--draft-requant", choices=["int4"],
        help="turn the MTP block into 4-bit weights while loading; the text is the same",
    )  # fmt: skip
    parser.add_argument(
        "--mtp-model", metavar="FILE",
        help="draft with the MTP block of this file or hf: name of the same model (see arcmtp mtp extract)",
    )  # fmt: skip
    parser.add_argument(
        "--mtp-hidden", choices=["post", "pre"], default="post",
        help="hidden rows for the MTP block: after (default) or before the final norm",
    )  # fmt: skip


def add_sampling_options(parser: Parser, title: str = "sampling (default: always the likeliest token)") -> None:
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


def sampling_options(options: argparse.Namespace, defaults: SamplingOptions | None = None) -> SamplingOptions:
    """The sampling options on the command line, the others from `defaults`; ArcmtpError for a value out of range."""
    from arcmtp.engine.sampling import SamplingOptions

    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(SamplingOptions) if hasattr(options, f.name)}
    return dataclasses.replace(defaults or SamplingOptions(), **{**given, "logit_bias": dict(options.logit_bias)})


def _draft_vocab(text: str) -> int | str:
    return int(text) if _is_number(text) else text


def _is_number(text: str) -> bool:
    """Whether it has only the digits 0 to 9, and no more than any number that makes sense."""
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ID=X, a token id and a number") from None
