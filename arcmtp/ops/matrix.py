"""A matrix in device memory."""

from dataclasses import dataclass

from arcmtp.model.formats import LANES, Format


@dataclass(frozen=True)
class Matrix:
    """`experts` matrices [n outputs, k inputs], one after the other from byte `offset` of a buffer."""

    format: Format
    n: int
    k: int
    offset: int = 0
    experts: int = 1

    @property
    def tiles(self) -> int:
        """Column tiles of one of the matrices."""
        return -(-self.n // LANES)

    @property
    def tile_bytes(self) -> int:
        """Bytes of one column tile."""
        return self.format.tile_bytes(self.k)

    @property
    def nbytes(self) -> int:
        """Bytes of all the matrices."""
        return self.experts * self.tiles * self.tile_bytes
