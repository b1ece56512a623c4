"""The command `arcmtp`, one module a command: each adds its options, calls what it is about, and prints."""

from arcmtp.cli.main import main

__all__ = ["main"]
