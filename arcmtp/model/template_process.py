"""A chat template in a process of its own, with limits of time and memory."""

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

from arcmtp.errors import ArcmtpError, one_line

SECONDS = 5.0  # of processor time to compile or render; a chat of 147,000 characters takes 4 ms
MEMORY_BYTES = 512 * 2**20
CHARACTERS = 32 * 2**20  # of a prompt
_WORKER = Path(__file__).with_name("template_worker.py")


class TemplateProcess:
    """Compiles and renders one template; the process starts with the first command, and again after it was killed.

    A limit cannot be kept within one process: Jinja folds constants such as `'x' * 10**9` while it compiles, and no
    exception reaches an operation of C that is under way. The process takes 0.2 s to start, and 22 MB.
    """

    def __init__(self, template: str, name: str) -> None:
        """Compile `template`, called `name` in errors. ArcmtpError, on one line, for what does not compile within the
        limits."""
        self._template, self._name = template, name
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        with self._lock:
            self._start()

    def render(self, variables: Mapping[str, Any]) -> str:
        """The template's text. Variables must be values of JSON. ArcmtpError, on one line, for what the template
        refuses, for failures of it, and where it takes more than the limits."""
        try:
            command = json.dumps({"variables": variables}, default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArcmtpError(f"{self._name}: {one_line(error)}; variables must be values of JSON") from None
        with self._lock:
            if self._process is None:
                self._start()
            return self._ask(command)

    def _start(self) -> None:
        arguments = [str(limit) for limit in (SECONDS, MEMORY_BYTES, CHARACTERS)]
        try:
            self._process = subprocess.Popen(  # -P: the modules beside the worker are not for import
                [sys.executable, "-P", str(_WORKER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                start_new_session=True,  # a terminal's Ctrl-C is for this process
            )  # fmt: skip
        except OSError as error:
            raise ArcmtpError(f"{self._name}: no process for it: {error.strerror}") from None
        self._end = weakref.finalize(self, _end, self._process)
        try:
            self._ask(json.dumps({"template": self._template}))
        except ArcmtpError:
            self._stop()
            raise

    def _ask(self, command: str) -> str:
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
            raise ArcmtpError(f"{self._name}: {_why_ended(status)}")
        reply = json.loads(line)
        if "error" not in reply:
            return str(reply["text"])
        where = f", line {reply['line']}" if "line" in reply else ""
        raise ArcmtpError(f"{self._name}{where}: {one_line(Exception(reply['error']))}")

    def _stop(self) -> None:
        self._process = None
        self._end()


def _why_ended(status: int) -> str:
    if status == -signal.SIGPROF:
        return f"it takes more than the {SECONDS:g} s of processor time that it may have"
    return f"its process ended with status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Without it a process would go on until its input ends."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # of what was not written
            pipe.close()  # type: ignore[union-attr]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} stands among them")
