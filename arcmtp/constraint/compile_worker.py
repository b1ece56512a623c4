"""The process in which grammars are compiled for the first time: a program of its own, which imports nothing of arcmtp.

A line of JSON on standard input is a command, and a line on standard output its reply. The first command is
{"tokens": {ID: TEXT IN HEX}, "special": [ID, …], "end": [ID, …], "count": NUMBER}, the vocabulary: each byte and each
control token, on which alone it depends whether a grammar compiles. Every other one is {"grammar": TEXT}; replies are
{"error": TEXT}, empty if the grammar compiles. Arguments: seconds of processor time for a command, bytes of memory,
bytes of stack. The kernel ends the process by SIGPROF when a command takes longer, by SIGSEGV when the stack is full.
"""

import json
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper


class _Bytes:
    """A tokenizer of bytes."""

    bos_token_id = None

    def __init__(self, vocabulary: Mapping[str, Any]) -> None:
        texts = {int(token_id): bytes.fromhex(text) for token_id, text in vocabulary["tokens"].items()}
        self.tokens = [texts.get(token_id, b"") for token_id in range(vocabulary["count"])]
        self.special_token_ids = vocabulary["special"]
        self.eos_token_id = vocabulary["end"][0]
        self._of_byte = {text[0]: i for i, text in texts.items() if len(text) == 1 and i not in self.special_token_ids}

    def __call__(self, text: bytes) -> list[int]:
        return [self._of_byte[byte] for byte in text]


def _error(tokenizer: LLTokenizer, grammar: str) -> str:
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=LLParserLimits(verbose_errors=False))
    if not matcher.is_error():
        matcher.compute_bitmask()
    return matcher.get_error()


def main(seconds: float) -> None:
    """Answer commands until standard input ends."""
    tokenizer: LLTokenizer | None = None
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        command, error = json.loads(line), ""
        if tokenizer is None:
            tokenizer = LLTokenizer(TokenizerWrapper(_Bytes(command)), eos_token=command["end"])
        else:
            error = _error(tokenizer, command["grammar"])
        sys.stdout.write(json.dumps({"error": error}) + "\n")
        sys.stdout.flush()
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it lives as long as the process that asks it
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # On a smaller stack than the threads that compile the grammar afterwards, so that what fits here fits there.
    threading.stack_size(int(sys.argv[3]))
    thread = threading.Thread(target=main, args=(float(sys.argv[1]),))
    thread.start()
    thread.join()
