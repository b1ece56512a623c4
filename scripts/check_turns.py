#!/usr/bin/env python3
"""How much sooner a server's first token comes when a chat goes on: the time for a first message, and for the next one.

Each round is a new chat of random words. Exit status 1 if, in the median, the second message's first token takes a
fifth of the first one's time or more.
"""

import argparse
import asyncio
import random
import sys
from statistics import median
from typing import Any

from arcmtp import ArcmtpError
from arcmtp.bench.client import chat, connect, first_model

MOST = 0.2
LETTERS = "etaoinshrdlu"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", metavar="URL", help="of an OpenAI-compatible server")
    parser.add_argument("--words", type=int, default=800, help="of the first message (default %(default)s)")
    parser.add_argument("-r", "--rounds", type=int, default=5, help="(default %(default)s)")
    options = parser.parse_args()
    try:
        ratios = asyncio.run(measure(options.url, options.words, options.rounds))
    except ArcmtpError as error:
        print(f"check_turns.py: {error}", file=sys.stderr)
        return 2
    print(f"the second message's first token took {median(ratios):.3f} of the first one's time")
    return int(median(ratios) >= MOST)


async def measure(url: str, words: int, rounds: int) -> list[float]:
    """The second time over the first one of each round."""
    choose, ratios = random.Random(), []
    async with connect(url, None) as client:
        model = await first_model(client)
        for number in range(1, rounds + 1):
            text = " ".join("".join(choose.choices(LETTERS, k=choose.randint(2, 9))) for _ in range(words))
            messages = [{"role": "user", "content": text}]
            first = await chat(client, body(model, messages))
            messages += [{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Which comes last?"}]
            second = await chat(client, body(model, messages))
            times = [answer.first_token_seconds for answer in (first, second)]
            print(
                f"round {number}: {first.prompt_tokens} tokens, first token after {times[0] * 1e3:.0f} ms; "
                f"{second.prompt_tokens} tokens, first token after {times[1] * 1e3:.0f} ms"
            )
            ratios.append(times[1] / times[0])
    return ratios


def body(model: str, messages: list[dict[str, str]]) -> dict[str, Any]:
    """A request for a short answer."""
    return {
        "model": model,
        "messages": messages,
        "max_tokens": 4,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


if __name__ == "__main__":
    sys.exit(main())
