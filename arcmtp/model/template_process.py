"""A chat template in a process of its own, with limits of time and memory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcmtp.errors import ArcmtpError, one_line
from arcmtp.worker_process import WorkerProcess

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
        self._name = name
        limits = [str(limit) for limit in (SECONDS, MEMORY_BYTES, CHARACTERS)]
        self._worker = WorkerProcess(_WORKER, limits, {"template": template})
        try:
            self._text(self._worker.ask(None, name))
        except ArcmtpError:
            self._worker.stop()
            raise

    def render(self, variables: Mapping[str, Any]) -> str:
        """The template's text. Variables must be values of JSON. ArcmtpError, on one line, for what the template
        refuses, for failures of it, and where it takes more than the limits."""
        try:
            command = json.dumps({"variables": variables}, default=_plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArcmtpError(f"{self._name}: {one_line(error)}; variables must be values of JSON") from None
        return self._text(self._worker.ask(command, self._name))

    def _text(self, reply: Mapping[str, Any]) -> str:
        if "error" not in reply:
            return str(reply["text"])
        where = f", line {reply['line']}" if "line" in reply else ""
        raise ArcmtpError(f"{self._name}{where}: {one_line(Exception(reply['error']))}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} stands among them")
