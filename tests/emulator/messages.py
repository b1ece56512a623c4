"""The text of messages to memory and between threads, with their descriptors.

Source: IGA's decoder of load-store messages (IGC, visa/iga/IGALibrary/IR/Messages/MessageDecoderLSC.cpp).
"""

import re
from dataclasses import dataclass

from tests.emulator.machine import REGISTER

SIGNAL = "(W) send.gtwy (1|M0) null r75 null:0 0x0 0x02000004"
BARRIER = (SIGNAL, "(W) sync.bar 0x0")
TEAM_FENCE = "(W) send.slm (1|M0) r73 r3 null:0 0x0 0x0210001F"
FENCE = "(W) send.ugm (1|M0) r73 r3 null:0 0x0 0x0210061F"
INVALIDATE = "(W) send.ugm (1|M0) r73 r3 null:0 0x0 0x0210261F"
FEWEST_LANES = 16  # that a message has room for
_OPCODES = {"load": 0, "store": 4, "atomic_iinc": 8, "atomic_iadd": 12}
_ELEMENTS = {"d32": 2, "d64": 3, "d8u32": 4, "d16u32": 5}
_COUNTS = {1: 0, 2: 1, 3: 2, 4: 3, 8: 4, 16: 5, 32: 6, 64: 7}


@dataclass(frozen=True)
class Shape:
    """ "d32x16t": 16 elements of 32 bits in a run; "d32x4": four for each channel; "d16u32": one, widened."""

    text: str

    @property
    def element(self) -> str:
        return self.text.split("x")[0]

    @property
    def count(self) -> int:
        found = re.search(r"x(\d+)", self.text)
        return int(found[1]) if found else 1

    @property
    def block(self) -> bool:
        return self.text.endswith("t")

    @property
    def memory_bytes(self) -> int:
        return int(re.findall(r"\d+", self.element)[0]) // 8

    @property
    def register_bytes(self) -> int:
        return int(re.findall(r"\d+", self.element)[-1]) // 8

    def registers(self, lanes: int) -> int:
        """How many registers the data takes: elements of all channels, at least 16 of them, begin a register each."""
        if self.block:
            return -(-self.count * self.register_bytes // REGISTER)
        return self.count * -(-max(lanes, FEWEST_LANES) * self.register_bytes // REGISTER)


def memory(
    kind: str, space: str, shape: str, address: int, data: int | None, displacement: int = 0, lanes: int = 1,
    returns: int | None = None,
) -> str:  # fmt: skip
    """A load (a prefetch if there is no data), store or atomic: the registers of addresses, data and old values."""
    what, wide = Shape(shape), space == "ugm"
    registers, addresses = what.registers(lanes), 1 if what.block else max(lanes, FEWEST_LANES)
    loaded, stored = (data, None) if kind == "load" else (returns, data)
    descriptor = (
        _OPCODES[kind] | (3 if wide else 2) << 7 | _ELEMENTS[what.element] << 9 | _COUNTS[what.count] << 12
        | what.block << 15 | (registers if loaded is not None else 0) << 20
        | -(-addresses * (8 if wide else 4) // REGISTER) << 25
    )  # fmt: skip
    target = "null" if loaded is None else f"r{loaded}"
    source = "null:0" if stored is None else f"r{stored}:{registers}"
    extended = (displacement & 0xFFFFF) << 12
    return f"send.{space} ({lanes}|M0) {target} r{address} {source} 0x{extended:X} 0x{descriptor:08X}"
