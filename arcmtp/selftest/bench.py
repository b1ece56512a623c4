"""A device on which launches of operators are compared with their references, in the geometry of its card."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from arcmtp.formats.activations import dequantise, pack_rows, quantise, row_bytes
from arcmtp.ops.launch import Batch
from arcmtp.runtime.device import Device
from arcmtp.runtime.launch import Kernel, Launch
from arcmtp.runtime.memory import Buffer, HostBuffer
from arcmtp.selftest.findings import Difference, close

POISON = 0xFFFFFFFF

ROW_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8)  # compiled for exactly these
SOME_ROWS = (1, 3, 17)  # of these 17 are counted when the kernel runs
SOME_KERNELS = (1, 3, 0)  # for them
SLOTS = 4
RUN_SLOTS = (2, 0, 3)  # of three sequences
FREE_SLOTS = (1,)  # take no part
RUN_ROWS = (1, 3, 8)  # rows of each sequence


class WrongResult(AssertionError):
    """Something that no result may be, whatever the reference says."""


def require(holds: bool | np.bool_, otherwise: str) -> None:
    """Raises WrongResult with the words `otherwise` for what does not hold."""
    if not holds:
        raise WrongResult(otherwise)


class Bench:
    """A device whose kernels run in one geometry."""

    def __init__(self, device: Device) -> None:
        self._device, self.geometry = device, device.card.geometry

    def repeats(self, count: int, least: int) -> int:
        """`count`, or `least` where a launch takes long: how often to do what chance varies, or with how many rows."""
        return count

    def compile(self, kernels: Iterable[Kernel]) -> None:
        """Compile kernels together: a source takes about a second, whatever it holds."""
        self._device.compile(kernels)

    def run(self, launches: Launch | Iterable[Launch]) -> None:
        """Run one launch or several and wait for them."""
        self._device.run(self._device.bind([launches] if isinstance(launches, Launch) else launches))

    def alloc(self, nbytes: int) -> Buffer:
        return self._device.alloc(nbytes)

    def host_zeros(self, nbytes: int) -> HostBuffer:
        return self._device.host_zeros(nbytes)

    def array(self, values: np.ndarray) -> Buffer:
        """A buffer holding `values`."""
        buffer = self.alloc(values.nbytes)
        buffer.write(values)
        return buffer

    def ints(self, values: Sequence[int] | np.ndarray) -> Buffer:
        """A buffer holding `values` as int32."""
        return self.array(np.array(values, np.int32))

    def zeros(self, nbytes: int) -> Buffer:
        """A buffer of zero bytes."""
        buffer = self.alloc(nbytes)
        buffer.fill(0)
        return buffer

    def poisoned(self, nbytes: int) -> Buffer:
        """A buffer whose floats are NaN and whose integers are -1, so that nothing unwritten passes for a result."""
        buffer = self.alloc(nbytes)
        buffer.fill(0xFF)
        return buffer

    def batch(self, slots: Sequence[int] = (0,)) -> Batch:
        """Batch in these slots."""
        return Batch(len(slots), self.ints(slots))

    def rows(self, buffer: Buffer, rows: int, width: int, dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
        """[rows, width], four bytes each, of a buffer that was poisoned; nothing behind them has been written."""
        values = buffer.read(dtype, buffer.nbytes // 4).reshape(-1, width)
        require((values[rows:].view(np.uint32) == POISON).all(), "a row behind the last was written")
        return values[:rows]

    def written(self, buffer: Buffer, rows: int) -> np.ndarray:
        """Which words of a buffer that was poisoned have been written: bool [rows, words]."""
        return buffer.read(np.uint32, buffer.nbytes // 4).reshape(rows, -1) != POISON

    def activation_rows(self, rows: int, k: int) -> Buffer:
        """A poisoned buffer for activation rows of k values."""
        return self.poisoned(rows * row_bytes(k, self._device.activation_orders))

    def write_activations(self, buffer: Buffer, x: np.ndarray) -> None:
        """Quantise x float32 [rows, k] into the first rows of a buffer."""
        with np.errstate(invalid="ignore"):
            buffer.write(pack_rows(*quantise(x), self._device.activation_orders))

    def read_activations(self, buffer: Buffer, plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes int8 [rows, k] and scales float32 [rows, k/32] of the activation rows in a buffer, those of `plain`
        float32 [rows, k]. Where that has no NaN, copies and sums are those of the codes."""
        (rows, k), orders = plain.shape, self._device.activation_orders
        nbytes = row_bytes(k, orders)
        packed = buffer.read(np.uint8, rows * nbytes).reshape(rows, nbytes)
        codes, scales = unpack_rows(packed, k, orders)
        for row in np.flatnonzero(~np.isnan(plain).any(axis=1)):
            want = pack_rows(codes[row : row + 1], scales[row : row + 1], orders)
            require(np.array_equal(packed[row : row + 1], want), "copies or sums of an int8 row are not of its codes")
        return codes, scales


def interleaved(sequences: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """[rows * sequences, …] of [rows, …] for each sequence: row r of sequence u is row r * sequences + u."""
    return np.stack(list(sequences), axis=1).reshape(-1, *sequences[0].shape[1:])


def unpack_rows(rows: np.ndarray, k: int, orders: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [rows, k] and scales float32 [rows, k/32] of device rows, uint8 [rows, row_bytes(k, orders)]."""
    codes = np.ascontiguousarray(rows[:, :k]).view(np.int8)
    scales = np.ascontiguousarray(rows[:, orders * k : orders * k + k // 8]).view(np.float32)
    return codes, scales


def int8_rows(what: str, plain: np.ndarray, seen: np.ndarray) -> Iterator[Difference]:
    """Of what consumers of int8 rows see from the rows `plain`, both float32 [rows, k]: a code may be off by one where
    rounding was near, in one of a hundred."""
    codes, scales = quantise(plain)
    want = dequantise(codes, scales)
    yield close(f"{what}: int8 rows", seen, want, atol=1.01 * scales.max())
    yield close(f"{what}: share of equal int8 values", np.array([np.mean(seen == want)]), np.ones(1), atol=0.01)
