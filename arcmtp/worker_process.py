"""A program that works for this one in a process of its own, with limits of time and memory."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcmtp.errors import ArcmtpError


class WorkerProcess:
    """Asks a worker, which reads a command of JSON a line and writes a line of JSON for each.

    The process starts with the first command, and again after it has ended, which is how the worker keeps its limits;
    at each start it is given `first`. Threads take turns.
    """

    def __init__(self, worker: Path, arguments: list[str], first: Mapping[str, Any]) -> None:
        """worker: a Python program; arguments: its limits, of which the first is the seconds of processor time that a
        command may take, kept by SIGPROF."""
        self._command = [sys.executable, "-P", str(worker), *arguments]  # -P: the modules beside it are not for import
        self._seconds, self._first = float(arguments[0]), json.dumps(first)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, command: str | None, name: str) -> dict[str, Any]:
        """The reply to a command, or with None to the first one, of a process that is started if there is none.
        ArcmtpError, which begins with `name`, if the process ends instead."""
        with self._lock:
            reply = self._start(name) if self._process is None else {}
            return reply if command is None else self._reply(command, name)

    def stop(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._stop()

    def _start(self, name: str) -> dict[str, Any]:
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for this process
            )  # fmt: skip
        except OSError as error:
            raise ArcmtpError(f"{name}: no process for it: {error.strerror}") from None
        self._end = weakref.finalize(self, _end, self._process)
        return self._reply(self._first, name)

    def _reply(self, command: str, name: str) -> dict[str, Any]:
        assert self._process and self._process.stdin and self._process.stdout
        line = b""
        try:
            with contextlib.suppress(OSError):  # of a process that has ended
                self._process.stdin.write(command.encode() + b"\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
        except BaseException:  # Ctrl-C: the reply that is to come answers no later command
            self._stop()
            raise
        if not line:
            status = self._process.wait()
            self._stop()
            raise ArcmtpError(f"{name}: {self._why_ended(status)}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _why_ended(self, status: int) -> str:
        match -status:
            case signal.SIGPROF:
                return f"it takes more than the {self._seconds:g} s of processor time that it may have"
            case signal.SIGSEGV:  # of a stack that is full
                return "it is nested too deeply"
            case signal.SIGABRT:  # by Rust, of a memory that is full
                return "it takes more than the memory that it may have"
            case _:
                return f"its process ended with status {status}"

    def _stop(self) -> None:
        if self._process is not None:
            self._process = None
            self._end()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Without it a process would go on until its input ends."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # of what was not written
            pipe.close()  # type: ignore[union-attr]
