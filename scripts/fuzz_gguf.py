#!/usr/bin/env python
"""Damage model files at random and open, plan and load them: whatever is wrong must be one line that names the file.

    scripts/fuzz_gguf.py --seed 1 --cases 2000
    scripts/fuzz_gguf.py --seed 1 --only 1234      # that case again, with its traceback

Case N is the same for the same seed. Cases run in a process of their own with limits of memory and time, which is
started again should it die. Status 1 if there are findings: exceptions that are no ArcmtpError, messages of several
lines, with control characters, too long or without the file's name, too much memory or time, and deaths.
"""

from __future__ import annotations

import argparse
import json
import resource
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where a program's folder is on it, not the repository's

from arcmtp.engine.model_file import ModelFile
from arcmtp.errors import ArcmtpError
from arcmtp.gguf import GGUF
from arcmtp.model.blocks.mtp import has_mtp
from arcmtp.model.mtp_donor import check_donor
from arcmtp.model.network import Network, NetworkOptions
from arcmtp.model.weights import WeightLoader
from arcmtp.runtime.card import cards
from scripts.fuzzing.files import Part, write_all
from scripts.fuzzing.mutations import ALL, data

SECONDS, MEMORY_BYTES, SILENT_SECONDS = 10, 1 << 30, 300
MESSAGE_CHARACTERS = 700
LOADED = 8  # of so many cases with a damaged header that can be planned one is loaded; those with damaged data all are
IN_MEMORY = Path("/dev/shm")  # where 100,000 cases do not write a terabyte to a disk
MESSAGES = [{"role": "user", "content": "Why?"}]


@dataclass(frozen=True)
class Outcome:
    """What became of a case. kind: "refused", "ran", or what is wrong; where: the stage, or the line of the sources."""

    case: int
    file: str
    mutation: str
    kind: str
    where: str
    message: str = ""

    @property
    def is_finding(self) -> bool:
        return self.kind not in ("refused", "ran")


class TooSlow(BaseException):
    """A case takes longer than it may."""


class Fuzzer:
    """Runs cases on files in `folder`."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed, self._files = seed, write_all(folder)
        self._stage = ""
        signal.signal(signal.SIGPROF, _too_slow)

    def run(self, case: int) -> Outcome:
        """One case."""
        random = Random(f"{self._seed} {case}")
        kind = random.choice(("whole", "whole", "whole", "mtp", "split"))
        mutation, part = random.choice(ALL), random.choice(self._files[kind])
        content = mutation(random, part)
        # Of most damaged headers that is all that differs from the file: not 11 MB are written, but 0.2.
        same = part.data if mutation is not data and len(content) == len(part.content) else 0
        _write(part, content, same)
        load = mutation is data or random.randrange(LOADED) == 0
        try:
            return Outcome(case, kind, mutation.__name__, *self._judged(kind, part, load))
        finally:
            _write(part, part.content, same)

    def _judged(self, kind: str, part: Part, load: bool) -> tuple[str, str, str]:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            self._use(kind, self._files[kind][0].path, load)
            return "ran", "loaded" if load else "planned", ""
        except ArcmtpError as error:
            return self._told(str(error), part)
        except TooSlow:
            return "slow", self._stage, f"more than {SECONDS} s of processor time"
        except MemoryError:
            return "memory", self._stage, f"more than {MEMORY_BYTES >> 20} MiB"
        except Exception as error:
            return "exception", _place(error), f"{type(error).__name__}: {error}"[:MESSAGE_CHARACTERS]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _told(self, message: str, part: Part) -> tuple[str, str, str]:
        right = message.isprintable() and len(message) <= MESSAGE_CHARACTERS and part.path.parent.name + "/" in message
        right = right or (self._stage == "prompt" and message.startswith(f"{self._files_name(part)}: "))
        return "refused" if right else "bad message", self._stage, message[: 2 * MESSAGE_CHARACTERS]

    def _files_name(self, part: Part) -> str:
        return next(parts[0].path.name for parts in self._files.values() if part in parts)

    def _use(self, kind: str, path: Path, load: bool) -> None:
        """Open a file, make a prompt, plan a network and load its weights into plain memory."""
        device: Any = SimpleNamespace(card=cards()["cpu"], activation_orders=3, alloc=Memory)
        self._stage = "open"
        file = ModelFile.open(path)
        self._stage = "prompt"
        prompting = file.prompting(1 << 20)
        if prompting.has_chat_template:
            prompting.ids(MESSAGES)
        self._stage = "plan"
        trunk = file
        if kind == "mtp":
            trunk = ModelFile.open(self._files["whole"][0].path)
            check_donor(trunk.gguf, trunk.config, file.gguf)
        mtp: GGUF | None = file.gguf if has_mtp(file.gguf, file.config) else None
        network = Network(trunk.gguf, trunk.config, NetworkOptions(64, trunk.tokenizer.vocab_used, mtp=mtp), device)
        if load and network.weights.nbytes < MEMORY_BYTES // 2:
            self._stage = "load"
            WeightLoader(network.weights, device).load()


def _write(part: Part, content: bytes, only: int) -> None:
    """All of a part, or only its first bytes."""
    with part.path.open("r+b") as file:
        file.write(content[:only] if only else content)
        file.truncate(len(content))


class Memory:
    """Device memory that is none."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def write(self, array: np.ndarray, offset: int = 0) -> None:
        """Nothing is kept."""
        assert offset + array.nbytes <= self.nbytes


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TooSlow


def _place(error: Exception) -> str:
    """The project's innermost line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/arcmtp/" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"


def run_cases(seed: int, cases: range) -> Iterator[Outcome]:
    """The outcomes, from processes that are started anew when they die."""
    first = cases.start
    while first < cases.stop:
        command = [sys.executable, __file__, "--seed", str(seed), "--worker", str(first), str(cases.stop)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
            assert worker.stdout
            while not (silent := not select.select([worker.stdout], [], [], SILENT_SECONDS)[0]) and (
                line := worker.stdout.readline()
            ):
                yield Outcome(**json.loads(line))
                first += 1
            worker.kill() if silent else worker.wait()
        if first < cases.stop:
            why = f"nothing for {SILENT_SECONDS} s" if silent else f"status {worker.returncode}"
            yield Outcome(first, "", "", "death", "", why)
            first += 1


def work(seed: int, cases: range) -> None:
    """The worker: an outcome a line."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        fuzzer = Fuzzer(seed, Path(folder))
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        for case in cases:
            print(json.dumps(asdict(fuzzer.run(case))), flush=True)


def main() -> int:
    """Status 1 if there are findings."""
    parser = argparse.ArgumentParser(description="Damage model files at random, open, plan and load them.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=300, help="how many (300)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one (0)")
    parser.add_argument("--only", type=int, help="one case, with its traceback")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.seed, range(*options.worker))
        return 0
    if options.only is not None:
        return _again(options.seed, options.only)
    kinds: Counter[tuple[str, ...]] = Counter()
    findings: Counter[tuple[str, str]] = Counter()
    with suppress(KeyboardInterrupt):  # which shows what was found so far
        for outcome in run_cases(options.seed, range(options.first, options.first + options.cases)):
            kinds[outcome.kind, outcome.where if not outcome.is_finding else ""] += 1
            if outcome.is_finding:
                findings[outcome.kind, outcome.where] += 1
                if findings[outcome.kind, outcome.where] == 1:
                    print(f"case {outcome.case}: {outcome}", file=sys.stderr, flush=True)
    for (kind, where), count in kinds.most_common():
        print(f"{count:8} {kind} {where}".rstrip())
    for (kind, where), count in findings.most_common():
        print(f"finding: {count} × {kind} at {where}")
    return int(bool(findings))


def _again(seed: int, case: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(seed, Path(folder))
        use = fuzzer._use

        def shown(*arguments: Any) -> None:
            try:
                use(*arguments)
            except Exception:
                traceback.print_exc()
                raise

        fuzzer._use = shown  # type: ignore[method-assign, assignment]
        outcome = fuzzer.run(case)
    print(outcome)
    return int(outcome.is_finding)


if __name__ == "__main__":
    sys.exit(main())
