"""What a check of `arcmtp doctor` finds, and how a check that fails is told."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from arcmtp.errors import ArcmtpError

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line: which check, how it ended, what was found, and what to do about it (empty if nothing)."""

    check: str
    status: Status
    message: str
    remedy: str = ""


Check = Callable[[], Iterator[Finding]]
NamedCheck = tuple[str, Check]


def guarded(name: str, check: Check) -> Iterator[Finding]:
    """What `check` finds; an exception in it is one more problem."""
    try:
        yield from check()
    except ArcmtpError as error:
        yield Finding(name, "problem", str(error))
    except Exception as error:  # whatever a broken installation raises is what was looked for
        text = next(iter(str(error).splitlines()), "without a message")
        yield Finding(name, "problem", f"the check failed: {type(error).__name__}: {text}")
