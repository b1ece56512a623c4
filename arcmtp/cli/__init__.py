"""The command `arcmtp`, one module a command group: parse, call, print."""

from arcmtp.cli.main import main

__all__ = ["main"]
