#!/usr/bin/env python3
"""Print how many tokens of prompts six chats with one system message evaluate, and what a checkpoint takes.

Run it as `.venv/bin/python -m scripts.shared_prefix [FILE]`; the default is the bundled model. Six chats with a system
message of about 1,000 tokens have three rounds in four slots. "new" are tokens that no earlier prompt or answer began
with. Times are the least of five. A file without a chat template has the
second part alone.
"""

import sys
import time
from collections.abc import Callable

from arcmtp import LLM
from arcmtp.engine.prefix_cache import common

CHATS, ROUNDS, ANSWER_TOKENS, TIMES, TOKENS = 6, 3, 16, 5, 1000
SYSTEM = " ".join(f"Rule {number}: keep to what the user asks, and cite section {7 * number}." for number in range(46))


def rounds(llm: LLM) -> tuple[int, int, int]:
    """Tokens of all prompts; those that were evaluated; those that were new."""
    chats = [[{"role": "system", "content": SYSTEM}] for _ in range(CHATS)]
    known: list[list[int]] = []
    whole = evaluated = new = 0
    for turn in range(ROUNDS):
        for number, chat in enumerate(chats):
            chat.append({"role": "user", "content": f"Question {turn} of chat {number}: what does rule {number} say?"})
        streams = [llm.stream(chat, ANSWER_TOKENS, enable_thinking=False) for chat in chats]
        for stream in streams:
            stream.start()
        for chat, stream in zip(chats, streams, strict=True):
            for _ in stream:
                pass
            result = stream.result
            prompt = result.prompt_ids
            new += len(prompt) - max((common(prompt, before) for before in known), default=0)
            evaluated += len(prompt) - result.statistics.cached_tokens
            whole += len(prompt)
            known.append([*prompt, *result.ids])
            chat.append({"role": "assistant", "content": result.text})
    return whole, evaluated, new


def least_us(work: Callable[[], None], before: Callable[[], None]) -> float:
    """Microseconds of the fastest of some runs, each behind `before`."""
    found = []
    for _ in range(TIMES):
        before()
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1e6)
    return min(found)


def checkpoints(llm: LLM) -> str:
    """What it takes to save and to restore a checkpoint."""
    cache, ids = llm.scheduler.cache, list(range(TOKENS))
    llm.new_sequence().extend(ids)
    save_us = least_us(lambda: cache.save(ids, 0), cache.clear)
    found = cache.find(ids)
    assert found is not None, "there is no room for a checkpoint"
    restore_us = least_us(lambda: cache.restore(found, 0, 0), lambda: None)
    mb = cache.device_bytes / 1e6
    began = time.perf_counter()
    llm.new_sequence().extend(ids)
    evaluate_us = (time.perf_counter() - began) * 1e6
    return (
        f"a checkpoint of {len(ids)} tokens: {mb:.2f} MB, saved in {save_us:.0f} µs ({save_us / mb:.0f} µs/MB), "
        f"restored in {restore_us:.0f} µs ({restore_us / mb:.0f} µs/MB); the tokens evaluated in {evaluate_us:.0f} µs"
    )


def main() -> None:
    with LLM(sys.argv[1] if len(sys.argv) > 1 else None, ctx=2048, parallel=4, draft=2) as llm:
        if llm.has_chat_template:
            whole, evaluated, new = rounds(llm)
            print(f"prompts have {whole} tokens, {new} of them new; {evaluated} evaluated, {evaluated / new:.2f} × new")
            print(llm.scheduler.cache.counts)
        print(checkpoints(llm))


if __name__ == "__main__":
    main()
