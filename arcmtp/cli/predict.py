"""`arcmtp predict`."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcmtp.cli.inspect import opened
from arcmtp.cli.options import integer, kv_type
from arcmtp.errors import ArcmtpError

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `predict`."""
    predict = commands.add_parser("predict", help="how fast a Battlemage card would run a model, by kernel")
    model = predict.add_mutually_exclusive_group()
    model.add_argument(
        "-m", "--model", metavar="FILE", help="a GGUF file, or hf:OWNER/NAME:QUANT (default: the bundled tiny model)"
    )
    model.add_argument(
        "--config", dest="published", metavar="NAME", help="a model without a file: qwen3.6-35b-a3b or qwen3.6-27b"
    )
    predict.add_argument("--card", metavar="NAME", default="arc-pro-b70", help="a card's profile (default arc-pro-b70)")
    predict.add_argument("--requant", choices=["int4"], help="as if the large matrices were loaded in 4-bit weights")
    predict.add_argument(
        "--kv-type", metavar="TYPE", type=kv_type, help="the KV cache's type (default: f16, and depths for every type)"
    )
    predict.add_argument("--draft-vocab", metavar="N", type=integer(1), help="drafts of N tokens (default: of all)")
    predict.add_argument("--draft-requant", choices=["int4"], help="as if the MTP block had 4-bit weights")
    predict.add_argument(
        "--acceptance", metavar="A,B,… | FILE", default="0.85,0.75,0.65",
        help="share of the cycles that accept the first draft, the second, …; or the JSON of arcmtp profile "
        "(default %(default)s)",
    )  # fmt: skip
    predict.add_argument("--json", action="store_true", help="print one JSON object")
    predict.add_argument("--plot", metavar="FILE", type=Path, help="draw it too, as .png or .svg")
    predict.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> None:
    from arcmtp.model.config import Config
    from arcmtp.predict import plot
    from arcmtp.predict.machine import hardware_of
    from arcmtp.predict.published import published
    from arcmtp.predict.report import Options, predict
    from arcmtp.predict.text import as_json, as_text

    hardware_of(options.card)
    asked = Options(
        options.card, options.requant, (options.kv_type,) if options.kv_type else (),
        options.draft_vocab or 0, options.draft_requant, _acceptance(options.acceptance),
    )  # fmt: skip
    if options.plot:
        plot.check(options.plot)
    with ExitStack() as stack:
        if options.published:
            config, gguf = published(options.published)
        else:
            gguf = stack.enter_context(opened(options.model))
            config = Config.from_gguf(gguf)
        report = predict(gguf, config, asked)
    print(as_json(report) if options.json else as_text(report))
    if options.plot:
        plot.draw(report, options.plot)


def _acceptance(text: str) -> tuple[float, ...]:
    """Shares with commas between them, or those of a profile."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        pass
    try:
        content: Any = json.loads(Path(text).read_bytes())
        shares = tuple(map(float, content["drafting"]["acceptance_by_position"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise ArcmtpError(
            f"acceptance is {text!r}; expected shares such as 0.85,0.75,0.65 or the JSON of arcmtp profile with drafts"
        ) from None
    return shares
