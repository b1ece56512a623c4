#!/usr/bin/env python3
"""Whether the chosen draft length pays: the requests of `arcmtp bench mtp`, each answered without drafts, with every
fixed draft length and with the length that the engine chooses, one after the other and as often as `--rounds` says.

Prints for each request the speed of every setting, how many times as fast the best fixed length is as no drafts, and
the chosen length as both. Ratios are taken within each round; beside their geometric mean stands the 95 % interval by
Student's t of their logarithms. The best fixed length is that of the request over all rounds; for a round's ratio it is
chosen by the other rounds. With `--at-once N` each request is answered together with the N - 1 after it. With `--llama
DIR` llama-server answers the same requests in each round, with the same fixed lengths; its threads spin, so it needs a
quiet machine.
Exit status 1: a text depends on the draft setting.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Protocol

from arcmtp import LLM
from arcmtp.bench.matrix import DRAFTS, name_of
from arcmtp.bench.mtp import Request, answer, most_drafts, prompts, questions
from arcmtp.cli.options import drafts, integer
from arcmtp.engine.loading import Draft
from arcmtp.errors import ArcmtpError
from scripts.bench_vs_llama_cpp import build, peer_answer, server


class Answer(Protocol):
    """One greedy answer to a prompt of token ids, at most so many tokens."""

    def __call__(self, name: str, prompt: list[int], tokens: int) -> Request: ...


@dataclass
class Measured:
    """One program's answers by draft setting: a list of rounds, each with the requests in their order."""

    program: str
    settings: dict[Draft, Answer]
    rounds: dict[Draft, list[list[Request]]] = field(default_factory=dict)

    def seconds(self, draft: Draft, requests: Sequence[int]) -> list[float]:
        """What decoding took in each round, summed over the requests of these numbers."""
        return [sum(done[number].decode_seconds for number in requests) for done in self.rounds[draft]]

    def speed(self, draft: Draft, requests: Sequence[int]) -> float:
        """Decoded tokens per second over all rounds."""
        decoded = sum(done[number].decoded for done in self.rounds[draft] for number in requests)
        return decoded / sum(self.seconds(draft, requests))

    def best(self, requests: Sequence[int]) -> Draft:
        """The fixed draft length that took the least time in all rounds."""
        return min(self._fixed, key=lambda draft: sum(self.seconds(draft, requests)))

    def best_seconds(self, requests: Sequence[int]) -> list[float]:
        """What decoding took in each round with the fixed length that is the best one in all other rounds: were it
        chosen by this round too, it would be the one that this round was kindest to."""
        seconds = [self.seconds(draft, requests) for draft in self._fixed]
        return [
            min(seconds, key=lambda rounds: sum(rounds) - rounds[number])[number] for number in range(len(seconds[0]))
        ]

    @property
    def _fixed(self) -> list[Draft]:
        return [draft for draft in self.rounds if isinstance(draft, int)]

    def differences(self, names: Sequence[str]) -> list[str]:
        """Requests whose text is not the same in all rounds and with all settings, a line each."""
        expected = next(iter(self.rounds.values()))[0]
        return [
            f"{self.program}: the text of {names[number]} differs with draft {name_of(draft)}"
            for draft, rounds in self.rounds.items()
            for number, request in enumerate(expected)
            if any(done[number].ids != request.ids for done in rounds)
        ]


def times_as_fast(seconds: Sequence[float], others: Sequence[float]) -> str:
    """How many times as fast as `others` something is in the same rounds, with its interval."""
    ratios = [theirs / ours for ours, theirs in zip(seconds, others, strict=True)]
    return "{:.3f} ({:.3f} – {:.3f})".format(*interval(ratios))


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of at least two ratios and its 95 % interval by Student's t."""
    logs = [math.log(ratio) for ratio in ratios]
    mean, half = fmean(logs), student(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, by its series from the normal quantile; exact to 1 % from 3 on."""
    if freedom < 3:
        return (12.706, 4.303)[freedom - 1]
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def measure(programs: Sequence[Measured], asked: dict[str, list[int]], tokens: int, rounds: int) -> None:
    """Fill the programs' rounds; every second round goes through the settings backwards. One round before is not
    counted. Raises ArcmtpError for an answer of one token, whose decoding has no speed."""
    ways = [(program, draft) for program in programs for draft in program.settings]
    for number in range(rounds + 1):
        print(f"round {number or 'to warm up'}", file=sys.stderr)
        done: list[list[Request]] = [[] for _ in ways]
        for name, prompt in asked.items():
            for place in range(len(ways))[:: -1 if number % 2 else 1]:
                program, draft = ways[place]
                done[place].append(program.settings[draft](name, prompt, tokens))
                if not done[place][-1].decoded:
                    raise ArcmtpError(f"the answer to {name} has one token: there is no speed of decoding")
        for (program, draft), requests in zip(ways, done, strict=True):
            program.rounds.setdefault(draft, []).extend([requests] if number else [])


def table(measured: Measured, names: Sequence[str]) -> str:
    """A line for each request and one for all of them: speeds, and ratios of settings."""
    drafts = list(measured.rounds)
    chosen = [draft for draft in drafts if not isinstance(draft, int)]
    ratios = ["best / off", *(f"{name_of(draft)} / {other}" for draft in chosen for other in ("best", "off"))]
    head = [measured.program, *map(name_of, drafts), "best", *ratios]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name, requests in [*((name, [number]) for number, name in enumerate(names)), ("all", range(len(names)))]:
        best, off = measured.best_seconds(requests), measured.seconds(0, requests)
        cells = [name, *(f"{measured.speed(draft, requests):.0f}" for draft in drafts)]
        cells += [name_of(measured.best(requests)), times_as_fast(best, off)]
        cells += [times_as_fast(measured.seconds(draft, requests), other) for draft in chosen for other in (best, off)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE", help="GGUF file with an MTP block")
    parser.add_argument(
        "--draft", type=drafts, default=DRAFTS, metavar="N,N…",
        help=f"draft settings, off among them ({','.join(map(name_of, DRAFTS))})",
    )  # fmt: skip
    parser.add_argument("--tokens", type=integer(2), default=512, help="of an answer at most (%(default)s)")
    parser.add_argument("--rounds", type=integer(2), default=10, help="that count (%(default)s)")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(prompts()), metavar="NAME,…", help="requests (all)"
    )
    parser.add_argument("--at-once", type=integer(1), default=1, metavar="N", help="requests at once (%(default)s)")
    parser.add_argument("--draft-p-min", type=float, default=0.0, metavar="P", help="of arcmtp (%(default)s)")
    parser.add_argument("--device", help="of arcmtp, as dpctl's filter string")
    parser.add_argument("--llama", type=Path, metavar="DIR", help="folder where llama.cpp is, or gets, built")
    parser.add_argument(
        "--threads", type=integer(1), default=len(os.sched_getaffinity(0)), help="of llama-server (%(default)s)"
    )
    options = parser.parse_args()
    if 0 not in options.draft:
        parser.error("--draft should have off, which the others are compared with")
    if options.at_once > 1 and options.llama:
        parser.error("--llama asks one request at a time")
    for name in set(options.only) - prompts().keys():
        parser.error(f"--only {name}: there is no such request; there are {', '.join(prompts())}")
    return options


def compare(options: argparse.Namespace) -> int:
    """Measure and print; 1 if a text of ours depends on the draft setting."""
    most = most_drafts(options.draft)
    with (
        LLM(
            options.file, options.device, draft=most, parallel=options.at_once, draft_p_min=options.draft_p_min
        ) as llm,
        ExitStack() as servers,
    ):  # fmt: skip
        texts = prompts()
        chosen = {name: texts[name] for name in options.only}
        asked = questions(llm.prompting, llm.context, chosen, options.tokens)
        of_ours = partial(_at_once, asked=asked, count=options.at_once) if options.at_once > 1 else _ours
        ours = Measured("arcmtp", {draft: of_ours(llm, draft) for draft in options.draft})
        programs = [ours]
        if options.llama:
            peer = partial(server, build(options.llama), options.file, llm.context, options.threads)
            fixed = [draft for draft in options.draft if isinstance(draft, int)]
            addresses = {draft: servers.enter_context(peer(draft)) for draft in fixed}
            programs.append(Measured("llama-server", {k: partial(peer_answer, a) for k, a in addresses.items()}))
        measure(programs, asked, options.tokens, options.rounds)
    names = list(asked)
    print(f"{options.file.name}, {options.rounds} rounds, at most {options.tokens} tokens a request; tokens/s\n")
    print("\n\n".join(table(program, names) for program in programs))
    differences = ours.differences(names)
    print("\n" + ("\n".join(differences) or "The texts are identical with every draft setting."))
    return int(bool(differences))


def _ours(llm: LLM, draft: Draft) -> Answer:
    return lambda name, prompt, tokens: answer(llm, name, prompt, tokens, draft)


def _at_once(llm: LLM, draft: Draft, asked: dict[str, list[int]], count: int) -> Answer:
    """Answers a request and those that follow it at once, `count` in all; the time is that of all, prompts included."""
    names = list(asked)

    def answers(name: str, prompt: list[int], tokens: int) -> Request:
        places = (names.index(name) + further for further in range(count))
        group = [asked[names[place % len(names)]] for place in places]
        began = time.perf_counter()
        results = llm.generate(group, tokens, draft=draft)
        seconds = time.perf_counter() - began
        logs = [result.statistics.draft for result in results if result.statistics.draft]
        ids = [token for result in results for token in result.ids]
        return Request(name, ids, sum(log.calls for log in logs), sum(log.accepted for log in logs), seconds, seconds)

    return answers


def main() -> int:
    options = parse()
    try:
        return compare(options)
    except ArcmtpError as error:
        print(f"bench_auto: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
