"""The end of a step: which of its rows count, what they say, and where the next step begins; all on the device."""

from collections.abc import Collection, Sequence

import numpy as np

from arcmtp.ops.launch import BATCH_PARAMETERS, CARRIED_ROWS, MAX_ROWS, Batch, cpp_bool, row_suffix
from arcmtp.runtime.launch import Argument, Cost, Kernel, Launch, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32

PARAMETERS = (
    *parameters(sampled=reads(I32), logits=reads(F32), stats=reads(F32), ids=writes(I32), positions=writes(I32)),
    *parameters(pending_count=writes(I32), drafted=reads(I32), accepted=writes(I32), turns=writes(I32)),
    *parameters(states=writes(I32), records=writes(I32), hidden=reads(F32), carried=writes(F32)),
    *BATCH_PARAMETERS,
)
TURN_WORDS = 32
DONE, STEP, LEFT, STOPS, STOP_IDS = range(5)  # words of `turn` (accept.hpp)
MAX_STOP_IDS = TURN_WORDS - STOP_IDS
RECORDS = 16  # steps whose records are kept
RECORD = np.dtype(
    [
        ("count", np.int32),  # tokens that the step gave; 0 when the generation was done before
        ("done", np.int32),
        ("accepted", np.int32),  # inputs that had been guessed, and guessed right
        ("drafted", np.int32),  # inputs that had been guessed
        ("unused", np.int32, 4),
        ("tokens", np.int32, MAX_ROWS),
        ("logprobs", np.float32, MAX_ROWS),
        ("padding", np.int32, 8),
    ]
)


def _word_of(field: str) -> int:
    assert RECORD.fields
    return int(RECORD.fields[field][1]) // 4


_FIELDS = ("count", "done", "accepted", "drafted", "tokens", "logprobs")
_AGREE = (
    *(("TURN_DONE", DONE), ("TURN_STEP", STEP), ("TURN_LEFT", LEFT), ("TURN_STOPS", STOPS)),
    *(("TURN_STOP_IDS", STOP_IDS), ("TURN_WORDS", TURN_WORDS), ("MAX_ROWS", MAX_ROWS), ("CARRIED_ROWS", CARRIED_ROWS)),
    *((f"RECORD_{name.upper()}", _word_of(name)) for name in _FIELDS),
    ("RECORD_WORDS", RECORD.itemsize // 4),
)


def turn(limit: int, stop_ids: Collection[int]) -> np.ndarray:
    """int32 [32]: the words of a generation that begins, of at most `limit` tokens, ended by any of `stop_ids`.

    Raises ValueError for more stop ids than there is room for.
    """
    if len(stop_ids) > MAX_STOP_IDS:
        raise ValueError(f"{len(stop_ids)} stop ids; there is room for {MAX_STOP_IDS}")
    words = np.zeros(TURN_WORDS, np.int32)
    words[LEFT], words[STOPS] = limit, len(stop_ids)
    words[STOP_IDS : STOP_IDS + len(stop_ids)] = list(stop_ids)
    return words


class Accept:
    """Accepts row 0 of each sequence of a step, and each further row whose input is what the row before it chose.

    stride: columns of a row of logits. hidden: values of a hidden row, of which the last accepted one is carried on; 0:
    there are none.
    """

    def __init__(self, stride: int, hidden: int = 0) -> None:
        self.stride, self.hidden = stride, hidden

    def kernel(self, rows: int, evaluated: bool) -> Kernel:
        """For 1…8 rows a sequence, which a step has `evaluated`, or whose tokens follow a prompt chunk."""
        return Kernel(
            operator="accept",
            variant=f"{self.stride}_{self.hidden}_{row_suffix(rows)}{'' if evaluated else '_first'}",
            header="accept.hpp",
            parameters=PARAMETERS,
            body=f"accept<{rows}, {self.stride}, {RECORDS}, {self.hidden}, {cpp_bool(evaluated)}>"
            "(sampled, logits, stats, ids, positions, pending_count, drafted, accepted, turns, states, records, "
            "hidden, carried, {batch_size, slots});",
            agree=_AGREE,
        )

    def launch(self, rows: int, evaluated: bool, batch: Batch, **arguments: Argument) -> Launch:
        """Of `rows` rows of each sequence: sampled i32, logits f32 [stride] and stats f32 [3] of the sampling before;
        ids, positions i32 of the step, overwritten for the next step: its first token, and positions that follow each
        other; hidden f32 [hidden]. Of each sequence: drafted i32, how many rows behind the first may count, all
        where it is larger than that; accepted i32, the last row that counts. Of each slot: pending_count i32, how many
        rows count, left as it is after a chunk; turns i32 [32]; states i32 [stride], in which tokens are counted;
        records: RECORDS of `RECORD`, in host memory; carried f32 [CARRIED_ROWS, hidden], where that of position p is
        row p % CARRIED_ROWS."""
        cost = Cost(RECORD.itemsize + 8 * self.hidden)
        kernel = self.kernel(rows, evaluated)
        return Launch(kernel, batch.size, rows * batch.size, arguments | batch.arguments, lambda work: cost)


def reference(
    sampled: Sequence[int], ids: Sequence[int], left: int, stop_ids: Collection[int], drafted: int = MAX_ROWS
) -> tuple[list[int], bool]:
    """The tokens that a step gives, and whether the generation is done with them."""
    tokens = []
    for row, token in enumerate(sampled):
        tokens.append(token)
        if len(tokens) >= left or token in stop_ids:
            return tokens, True
        if row == drafted or (row + 1 < len(sampled) and ids[row + 1] != token):
            break
    return tokens, False
