"""Conversations as files: a JSON list of messages, as OpenAI's requests have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arcmtp.chat.conversation import Message
from arcmtp.errors import ArcmtpError
from arcmtp.runtime.files import OutputFile

ROLES = ("system", "user", "assistant")
MOST_BYTES = 1 << 26  # far above any context, and little enough to read


def save(path: Path, messages: list[Message]) -> None:
    """Write messages, whole or not at all. Raises ArcmtpError for a place that cannot be written to."""
    with OutputFile(path) as output:
        output.write(json.dumps(messages, ensure_ascii=False, indent=1) + "\n")


def load(path: Path) -> list[Message]:
    """The messages of a file. Raises ArcmtpError, naming the file, for anything else."""
    try:
        if not path.is_file():
            raise _wrong(path, "no such file" if not path.exists() else "is not a file")
        if path.stat().st_size > MOST_BYTES:
            raise _wrong(path, f"has more than {MOST_BYTES:,} bytes")
        messages = json.loads(path.read_bytes())
    except OSError as error:
        raise _wrong(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested too deeply
        raise _wrong(path, " ".join(str(error).split())) from None
    if not isinstance(messages, list):
        raise _wrong(path, "is no list")
    return [_checked(path, index, message) for index, message in enumerate(messages)]


def _checked(path: Path, index: int, message: Any) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise _wrong(path, f"message {index} has none of the roles {', '.join(ROLES)}")
    if index and role == "system":
        raise _wrong(path, f"message {index} is the system's, which only the first one can be")
    kept = {key: message[key] for key in ("role", "content", "reasoning_content") if key in message}
    if "content" not in kept or not all(isinstance(value, str) for value in kept.values()):
        raise _wrong(path, f"message {index} has no text as its content")
    return kept


def _wrong(path: Path, what: str) -> ArcmtpError:
    return ArcmtpError(f"{path}: {what}; expected a JSON list of messages, as /save writes it")
