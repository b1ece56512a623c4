"""`main`: parse the command line, dispatch to the module of the command, and turn errors into one line."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from arcmtp import __version__
from arcmtp.cli import (
    bench,
    chat,
    devices,
    doctor,
    generate,
    inspect,
    mtp,
    perplexity,
    predict,
    profile,
    pull,
    selftest,
    serve,
)
from arcmtp.cli.options import Parser
from arcmtp.cli.streams import Forgiving, prepare, to_nowhere
from arcmtp.errors import ArcmtpError, printable
from arcmtp.runtime import environment

COMMANDS = (devices, doctor, selftest, inspect, predict, pull, chat, generate, serve, perplexity, profile, bench, mtp)
EXIT_ERROR, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 2, 130, 141  # the last two as shells report SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` name (default: the process's own); the exit status.

    0: done; 1: done, and something is not as it should be; 2: bad input, told in one line on standard error;
    130: interrupted; 141: the reader of standard output went away.
    """
    prepare()
    with contextlib.redirect_stderr(Forgiving(sys.stderr)):
        return _run(sys.argv[1:] if arguments is None else arguments)


def _run(arguments: Sequence[str]) -> int:
    try:
        options = _parse(arguments)
        environment.check()
        status: int | None = options.run(options)
        print(end="", flush=True)
    except ArcmtpError as error:
        print(f"arcmtp: {printable(str(error))}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError:
        print("arcmtp: this machine, or what it allows the process, has too little memory left", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:  # from writing: what is read is checked where it is opened
        to_nowhere(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return EXIT_CLOSED_PIPE
        print(f"arcmtp: {error.filename or 'standard output'}: {error.strerror}", file=sys.stderr)
        return EXIT_ERROR
    return status or 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="arcmtp", description="Qwen3.6-35B-A3B on Intel Arc through SYCL.")
    parser.add_argument("--version", action="version", version=f"arcmtp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    bench.check_place(options, arguments)
    if file := getattr(options, "config", None):
        options = serve.with_config(parser, file, arguments)
    return options
