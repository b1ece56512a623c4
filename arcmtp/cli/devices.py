"""`arcmtp devices`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arcmtp.cli.options import SubParsers


def add(commands: SubParsers) -> None:
    """Add the command `devices`."""
    devices = commands.add_parser("devices", help="list the SYCL devices and the card profiles that apply")
    devices.set_defaults(run=_devices)


def _devices(options: argparse.Namespace) -> None:
    from arcmtp.runtime.devices import format_table, list_devices

    print(format_table(list_devices()))
