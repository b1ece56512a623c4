"""Work in a forked copy of this process, whose crash or hang does not end this one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

END_S = 10.0  # a process that waits for a driver that hangs may not end at all


class ProcessEnded(Exception):
    """The copy ended before its work did, or was ended; the message says why, such as `SIGSEGV`."""


class NoAnswer(ProcessEnded):
    """The copy said nothing for too long, and was ended."""


def forked(work: Callable[[], Iterable[Any]], patience_s: float) -> Iterator[Any]:
    """What `work` yields in a copy of this process, piece by piece; it must not have begun to use SYCL, whose threads
    the copy lacks.

    Raises ProcessEnded if the copy ends early, NoAnswer if it yields nothing for `patience_s` seconds.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=_send, args=(work, sender), daemon=True)
    process.start()
    sender.close()
    try:
        while receiver.poll(patience_s):
            is_last, piece = receiver.recv()
            if is_last:
                return
            yield piece
        raise NoAnswer(f"no answer for {patience_s:g} seconds")
    except EOFError:
        process.join()
        raise ProcessEnded(_cause(process.exitcode)) from None
    finally:
        process.kill()
        process.join(END_S)


def _send(work: Callable[[], Iterable[Any]], sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent tells of an interruption
    for piece in work():
        sender.send((False, piece))
    sender.send((True, None))


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"
