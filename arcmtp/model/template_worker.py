"""The process in which a file's chat template is compiled and rendered: a program of its own, which imports nothing of
arcmtp and so starts at once.

A line of JSON on standard input is a command, and a line on standard output its reply. The first command is
{"template": TEXT}, every other one {"variables": {…}} to render it with; replies are {"text": TEXT} or
{"error": TEXT, "line": NUMBER}. Arguments: seconds of processor time for a command, bytes of memory, characters of a
reply's text. The kernel ends the process by SIGPROF when a command takes longer, even within one operation.
"""

import json
import resource
import signal
import sys
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ERROR_CHARACTERS = 1000  # of an error's text, which a template may make as long as it likes


def _environment() -> ImmutableSandboxedEnvironment:
    """As Hugging Face's `apply_chat_template` has it, without Jinja's random text."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    del environment.globals["lipsum"]
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML and sorts keys, which is not what models were trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def main(seconds: float, memory: int, characters: int) -> None:
    """Answer commands until standard input ends."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the process lives as long as the one that asks it
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    environment, template = _environment(), jinja2.Template("")
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        reply: dict[str, Any] = {"text": ""}
        try:
            command = json.loads(line)
            if "template" in command:
                template = environment.from_string(command["template"])
            else:
                reply["text"] = template.render(command["variables"])
            if len(reply["text"]) > characters:
                reply = {"error": f"its text has {len(reply['text'])} characters; it may have {characters}"}
        except MemoryError:
            reply = {"error": f"it takes more than the {memory // 2**20} MiB of memory that it may have"}
        except Exception as error:  # the template is a program of the file's: it may fail in any way
            reply = {"error": str(error)[:_ERROR_CHARACTERS] or type(error).__name__}
            if isinstance(error, jinja2.TemplateSyntaxError):
                reply["line"] = error.lineno
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
