"""Sampling with options against its reference: the same token wherever the best is ahead by more than rounding.

A margin is what float32 noise (4e-6 for the largest), the sum with a score of up to 64 (4e-6) and their ties can blur.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from arcmtp.ops.gumbel_sampling import (
    BIASES,
    OPTION_WORDS,
    GumbelSampling,
    History,
    Options,
    kept,
    reference,
    scores,
)
from arcmtp.ops.launch import MAX_ROWS
from arcmtp.ops.sampling import STATS, Vocabulary
from arcmtp.selftest.bench import RUN_ROWS, RUN_SLOTS, SLOTS, Bench, interleaved
from arcmtp.selftest.findings import Difference, equal

MOST_ROWS = len(RUN_SLOTS) * max(RUN_ROWS)
VOCAB = 1003  # no multiple of 16, and fewer quads than a GPU has threads
MARGIN = 2e-5
PLAIN = Options(temperature=1, seed=11)
SETTINGS = [
    Options(),
    PLAIN,
    Options(temperature=0.6, seed=2**63 + 5),
    Options(temperature=1.5, seed=3, choice=2),
    *(Options(temperature=1, top_k=k, seed=k) for k in (1, 2, 20, 64, 300, VOCAB)),
    *(Options(temperature=1, top_p=p, seed=4) for p in (1e-9, 0.1, 0.8, 0.999)),
    *(Options(temperature=1, min_p=p, seed=5) for p in (1e-6, 0.1, 1)),
    Options(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=6),
    Options(temperature=1.2, top_k=300, top_p=0.77, seed=7),
    Options(temperature=1, top_p=0.9, min_p=0.02, seed=8),
    Options(temperature=1, top_k=20, top_p=0.999, seed=9),
    Options(temperature=1, top_k=50, min_p=0.4, seed=10),
]


@dataclass(frozen=True)
class Run:
    """A run of a step: logits [rows, vocab_used], of which the first are those of row `first` of the sequence; `states`
    and `biases` of its slot; `position` and `inputs` of all its rows from the first one on."""

    options: Options
    logits: np.ndarray
    position: int
    states: np.ndarray
    biases: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray


class GumbelBench:
    """Sampling from `vocab_used` columns, in rows of up to 8 of each sequence."""

    def __init__(self, bench: Bench, op: GumbelSampling) -> None:
        self.bench, self.op = bench, op
        self.vocab_used = op.vocab_used
        self.scratch = bench.poisoned(math.prod(op.scratch_shape(MOST_ROWS)) * 4)
        self.counters = bench.zeros(MOST_ROWS * 3 * 4)

    @classmethod
    def of(cls, bench: Bench, *vocabularies: int) -> "list[GumbelBench]":
        """One for each vocabulary, compiled together."""
        ops = [GumbelSampling(Vocabulary(used, -(-used // 16) * 16), bench.geometry) for used in vocabularies]
        bench.compile(kernel for op in ops for kernel in op.kernels())
        return [cls(bench, op) for op in ops]

    def padded(self, logits: np.ndarray) -> np.ndarray:
        """Rows of the stride, with NaN in what the vocabulary does not use."""
        columns = self.op.stride - logits.shape[1]
        return np.pad(logits.astype(np.float32), ((0, 0), (0, columns)), constant_values=np.nan)

    def history(
        self, options: Options, positions: np.ndarray, states: np.ndarray | None = None,
        biases: np.ndarray | None = None, inputs: Sequence[int] | None = None,
    ) -> History:  # fmt: skip
        """Device buffers; `positions` are those of the evaluated tokens, one before the chosen ones.

        Without `inputs` the rows do not continue each other.
        """
        inputs = [self.vocab_used] * MAX_ROWS if inputs is None else inputs
        states = np.zeros(self.vocab_used) if states is None else states
        biases = np.zeros(BIASES) if biases is None else biases
        array = self.bench.array
        return History(
            options=array(options.words()), states=self.bench.ints(states), biases=array(biases.astype(np.float32)),
            inputs=self.bench.ints(inputs), positions=self.bench.ints(positions), batch=self.bench.batch(),
        )  # fmt: skip

    def run(
        self, options: Options, logits: np.ndarray, first: int = 0, targets: np.ndarray | None = None,
        states: np.ndarray | None = None, biases: np.ndarray | None = None, inputs: Sequence[int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """ids [rows] and stats [rows, 3] of logits [rows, vocab_used]; row r's token is at position first + r + 1."""
        targets = np.full(len(logits), -1) if targets is None else targets
        history = self.history(options, first + np.arange(len(logits)), states, biases, inputs)
        return self.results(history, logits, targets)

    def run_all(self, sequences: Sequence[Run], slots: Sequence[int], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """ids and stats of the rows of sequences in `slots`; no other slot and no padding has any sense."""
        array, vocab = self.bench.array, self.vocab_used
        options = np.full((SLOTS, OPTION_WORDS), -1, np.int32)
        states, biases = np.full((SLOTS, self.op.stride), -1, np.int32), np.full((SLOTS, BIASES), np.nan, np.float32)
        for run, slot in zip(sequences, slots, strict=True):
            options[slot], states[slot, :vocab], biases[slot] = run.options.words(), run.states, run.biases
        positions = interleaved([run.position + np.arange(len(run.inputs)) for run in sequences])
        history = History(
            array(options), array(states), array(biases), array(interleaved([run.inputs for run in sequences])),
            self.bench.ints(positions), self.bench.batch(slots), first,
        )  # fmt: skip
        return self.results(
            history, interleaved([run.logits for run in sequences]), interleaved([run.targets for run in sequences])
        )

    def results(self, history: History, logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ids [rows] and stats [rows, 3] of one launch."""
        rows = len(logits)
        ids, stats = self.bench.poisoned(rows * 4), self.bench.poisoned(rows * STATS * 4)
        launches = self.op.launches(
            rows, history, logits=self.bench.array(self.padded(logits)), targets=self.bench.ints(targets), ids=ids,
            stats=stats, scratch=self.scratch, counters=self.counters,
        )  # fmt: skip
        self.bench.run(launches)
        return ids.read(np.int32, rows), stats.read(np.float32, rows * STATS).reshape(rows, STATS)

    def draw(
        self, settings: Sequence[Options], logits: np.ndarray, count: int,
        states: np.ndarray | None = None, biases: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """ids [settings, count] at the positions 1, 2, … for one row of logits, eight rows a launch."""
        words = np.concatenate([options.words() for options in settings])
        h = self.history(settings[0], np.arange(count), states, biases)
        blocks, places = self.bench.array(words), self.bench.ints(np.arange(count))
        device_logits = self.bench.array(self.padded(np.stack([logits] * MAX_ROWS)))
        targets, stats = self.bench.ints([-1] * MAX_ROWS), self.bench.poisoned(MAX_ROWS * STATS * 4)
        ids = self.bench.poisoned(len(settings) * count * 4)
        launches = []
        for index in range(len(settings)):
            for start in range(0, count, MAX_ROWS):
                history = replace(h, options=blocks.at(index * OPTION_WORDS * 4), positions=places.at(start * 4))
                launches += self.op.launches(
                    min(MAX_ROWS, count - start), history, logits=device_logits, targets=targets,
                    ids=ids.at((index * count + start) * 4), stats=stats, scratch=self.scratch,
                    counters=self.counters,
                )  # fmt: skip
        self.bench.run(launches)
        return ids.read(np.int32, len(settings) * count).reshape(len(settings), count)


def differences(
    case: GumbelBench, settings: Sequence[Options], logits: np.ndarray, count: int
) -> Iterator[Difference]:
    """Of the tokens of one row of logits at the positions 1, 2, …, for every setting; within the margin any token that
    the filters leave is right."""
    logits = logits.astype(np.float32)
    none = np.zeros(len(logits), np.int32), np.zeros(BIASES)
    for options, ids in zip(settings, case.draw(settings, logits, count), strict=True):
        allowed, want = kept(options, scores(options, logits, *none)), ids.copy()
        for place, token in enumerate(ids):
            first, ahead = reference(options, place + 1, logits, *none)
            near = options.temperature and ahead <= MARGIN
            right = near and (allowed[token] or not (allowed.any() or token))
            want[place] = token if right else first
        yield equal(f"{options}: tokens", ids, want)


def compare(bench: Bench) -> Iterator[Difference]:
    """Every filter, alone and with others, on ordinary logits."""
    (case,) = GumbelBench.of(bench, VOCAB)
    logits = 3 * np.random.default_rng(3).standard_normal(VOCAB)
    yield from differences(case, SETTINGS, logits, MAX_ROWS)
