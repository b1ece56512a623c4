"""The command `arcmtp`, one module a command: each adds its options, calls the package and prints."""

from arcmtp.cli.main import main

__all__ = ["main"]
