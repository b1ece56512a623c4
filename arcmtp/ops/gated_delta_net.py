"""GATED_DELTA_NET: from a layer's projections to the rows of its output product in one launch, a work-group for each V
head of each sequence.

Rows are committed late. A step leaves its own rows out of the state and keeps what they would add to it; the next
launch reads from `pending_count` how many rows were accepted, commits these, and then runs its own. So rejected
rows never touched anything, and the state is read and written once per step. A prompt chunk commits its rows but for
the last few, if that is asked for: the state before them is what a checkpoint is made of.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from arcmtp.ops.cost import consumed_bytes
from arcmtp.ops.launch import BATCH_PARAMETERS, MAX_ROWS, Batch, Consumers, row_suffix
from arcmtp.runtime.card import Geometry
from arcmtp.runtime.launch import FLOAT, Argument, Cost, Kernel, Launch, Work, parameters, reads, writes
from arcmtp.runtime.tensor import F32, I32, U8

PARAMETERS = (
    *parameters(projected=reads(F32), conv=reads(F32), a=reads(F32), dt_bias=reads(F32), norm=reads(F32)),
    *parameters(rms_eps=FLOAT, memory=writes(F32), pending_count=reads(I32)),
    *BATCH_PARAMETERS,
    *parameters(row_count=reads(I32), chunk_pending=reads(I32), quantised=writes(U8), plain=writes(F32)),
)
WINDOW = 3  # columns before the current one that the convolution sees
L2_EPS = 1e-6


@dataclass(frozen=True)
class Heads:
    """V head v shares the queries and keys of K head v mod `k`; dims are elements of one head."""

    k: int
    v: int
    k_dim: int
    v_dim: int

    @property
    def channels(self) -> int:
        """What the convolution runs over: the queries and keys of all K heads, the values of all V heads."""
        return 2 * self.k * self.k_dim + self.v * self.v_dim

    @property
    def outputs(self) -> int:
        """Values of one output row."""
        return self.v * self.v_dim


@dataclass(frozen=True)
class Columns:
    """A row of projections: `stride` floats, q, k and v from 0, the others from these columns (`MulMat.column_of`)."""

    stride: int
    z: int
    beta: int
    alpha: int


class GatedDeltaNet:
    """The mixer of a GDN layer between its projections and its output product.

    k_dim is a multiple of 16 and v_dim of 32.
    """

    def __init__(
        self, heads: Heads, columns: Columns, rms_eps: float, consumers: Consumers, geometry: Geometry
    ) -> None:
        self.heads, self.columns, self.rms_eps, self.consumers = heads, columns, rms_eps, consumers
        self._team = geometry.gdn_team

    @property
    def head_dtype(self) -> np.dtype[np.void]:
        """What a V head keeps between launches. Zeros are a fresh sequence."""
        h, f32 = self.heads, np.float32
        return np.dtype(
            [
                ("state", f32, (h.v_dim, h.k_dim)),  # after all committed tokens, transposed
                ("history", f32, (WINDOW + MAX_ROWS, 2 * h.k_dim + h.v_dim)),  # raw columns: committed, then pending
                ("pending_keys", f32, (MAX_ROWS, h.k_dim)),
                ("pending_deltas", f32, (MAX_ROWS, h.v_dim)),
                ("pending_decays", f32, 16),
            ]
        )

    @property
    def state_bytes(self) -> int:
        """Bytes of one sequence's memory in one layer: `head_dtype` of every V head."""
        return self.heads.v * self.head_dtype.itemsize

    def kernel(self, rows: int) -> Kernel:
        """For a step of 1…8 rows a sequence, or, with `rows` 0, a prompt chunk of as many as `row_count` says."""
        h, c = self.heads, self.columns
        shape = (h.k, h.v, h.k_dim, h.v_dim, *astuple(c))
        net = f"DeltaNet<{', '.join(map(str, shape))}>"
        return Kernel(
            operator="gated_delta_net",
            variant=f"{'_'.join(map(str, shape))}_{self.consumers.suffix}_{row_suffix(rows)}",
            header="gated_delta_net.hpp",
            parameters=PARAMETERS,
            body=f"gated_delta_net<{net}, {rows}, {self._team}, {self.consumers.template}>"
            "(projected, conv, a, dt_bias, norm, rms_eps, memory, pending_count, {batch_size, slots}, row_count, "
            "chunk_pending, quantised, plain);",
            team=self._team,
            team_memory=(rows or MAX_ROWS) * (2 * h.k_dim + 2 * h.v_dim + 32) * 4,
            agree=(
                ("WINDOW", WINDOW),
                ("PENDING_ROWS", MAX_ROWS),
                ("L2_EPS", L2_EPS),
                (f"HeadMemory<{net}>::FLOATS * 4", self.head_dtype.itemsize),
            ),
        )

    def launch(self, rows: int, batch: Batch, **arguments: Argument) -> Launch:
        """projected [rows of all sequences, stride] f32; conv [channels, 4] f32, the current token's tap last; a =
        -exp(A_log) and dt_bias [V heads] f32; norm [v_dim] f32; memory: `state_bytes` for each slot; pending_count i32
        [slots]: how many of the rows that are pending to commit; row_count and chunk_pending i32, for chunks, which
        have one sequence: its rows, and how many of the last ones, at most 8, stay pending; a chunk of 0 rows only
        commits. rows: of each sequence.

        Results are activation rows in `quantised` and [rows, outputs] f32 in `plain`.
        """
        arguments |= {"rms_eps": float(self.rms_eps), **batch.arguments}
        return Launch(self.kernel(rows), batch.size * self.heads.v, rows * batch.size, arguments, self._cost(batch))

    def _cost(self, batch: Batch) -> Callable[[Work], Cost]:
        """The state of each sequence is read and written once."""
        h = self.heads
        state = h.v * h.k_dim * h.v_dim
        row = 4 * self.columns.stride + consumed_bytes(self.consumers, h.outputs)
        # Per row and element of the state: decay, k · state, the update, q · state.
        operations = 7 * state + 2 * (WINDOW + 1) * h.channels
        return lambda work: Cost(batch.size * 8 * state + work.rows * row, work.rows * operations)


def reference(
    op: GatedDeltaNet, projected: np.ndarray, conv: np.ndarray, a: np.ndarray, dt_bias: np.ndarray, norm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Output [tokens, outputs] and final state [V heads, k_dim, v_dim] of a fresh sequence of tokens, in float64."""
    h, c = op.heads, op.columns
    rows = projected.astype(np.float64)
    padded = np.pad(rows[:, : h.channels], ((WINDOW, 0), (0, 0)))
    mixed = _silu(sum(padded[i : i + len(rows)] * conv[:, i] for i in range(WINDOW + 1)))
    q, k, v = np.split(mixed, [h.k * h.k_dim, 2 * h.k * h.k_dim], axis=1)
    k_head = np.arange(h.v) % h.k
    q, k = (_unit(x.reshape(-1, h.k, h.k_dim))[:, k_head] for x in (q, k))
    v = v.reshape(-1, h.v, h.v_dim)
    z = rows[:, c.z : c.z + h.outputs].reshape(v.shape)
    beta = 1 / (1 + np.exp(-rows[:, c.beta : c.beta + h.v]))
    decay = np.exp(a * np.logaddexp(0, rows[:, c.alpha : c.alpha + h.v] + dt_bias))
    state = np.zeros((h.v, h.k_dim, h.v_dim))
    output = np.empty(v.shape)
    for t in range(len(rows)):
        state *= decay[t][:, None, None]
        delta = beta[t][:, None] * (v[t] - np.einsum("hij,hi->hj", state, k[t]))
        state += k[t][:, :, None] * delta[:, None, :]
        output[t] = np.einsum("hij,hi->hj", state, q[t] / np.sqrt(h.k_dim))
    normed = output / np.sqrt(np.square(output).mean(-1, keepdims=True) + op.rms_eps) * norm
    return (normed * _silu(z)).reshape(len(rows), -1), state


def _silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.square(x).sum(-1, keepdims=True) + L2_EPS)
