"""`arcmtp pull`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from arcmtp.cli.loading import bring
from arcmtp.cli.options import integer

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `pull`."""
    pull = commands.add_parser("pull", help="download a model from a hub")
    pull.add_argument(
        "name", metavar="hf:OWNER/NAME[:QUANT]",
        help="a repository of huggingface.co (or HF_ENDPOINT); without QUANT its largest file that fits the device",
    )  # fmt: skip
    pull.add_argument("-c", "--ctx", metavar="N", type=integer(1), help="tokens of context that are to fit as well")
    pull.add_argument("--device", metavar="D", help="the device that it is to fit, as `arcmtp devices` lists it")
    pull.set_defaults(run=_pull)


def _pull(options: argparse.Namespace) -> None:
    print(bring(options.name, options))
