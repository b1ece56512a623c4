"""How files are damaged: each way takes a random generator and a part, and gives the part's new content."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from scripts.fuzzing.files import Part, string

Mutation = Callable[[Random, Part], bytes]

NUMBERS = (0, 1, 2, 3, 7, 31, 32, 255, 1 << 15, (1 << 16) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
           1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
TEXTS = ("", "none", "yarn", "gpt2", "qwen35moe", "a\x1b[2J\r\n", "\u202e\u0000", "x" * 5000, "{{ 1 / 0 }}", "{% if %}",
         "{{ raise_exception('\x1b[31m') }}", "{{ messages | tojson }}" * 3)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-38, 3e38, float("inf"), float("-inf"), float("nan"))
SCALARS = "BbHhIif?"  # value types 0 to 7


def bits(random: Random, part: Part) -> bytes:
    """Some bits of one entry or tensor of the header are flipped."""
    content, place = bytearray(part.content), _place(random, part)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        content[random.randrange(place.start, place.stop)] ^= 1 << random.randrange(8)
    return bytes(content)


def number(random: Random, part: Part) -> bytes:
    """A number somewhere in the header becomes another one."""
    content, place = bytearray(part.content), _place(random, part)
    size = random.choice((1, 2, 4, 8))
    at = random.randrange(place.start, max(place.stop - size, place.start) + 1)
    content[at : at + size] = (random.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(content)


def value(random: Random, part: Part) -> bytes:
    """A key gets a value of another type."""
    entry = random.choice(part.entries)
    key_end = entry.start + 8 + struct.unpack_from("<Q", part.content, entry.start)[0]
    return _replaced(part, slice(key_end, entry.stop), _value(random))


def repeated(random: Random, part: Part) -> bytes:
    """A key or a tensor is there twice in place of another, or the other one is missing under its name."""
    places = random.choice((part.entries, part.tensors)) or part.entries
    one, other = random.choice(places), random.choice(places)
    return _replaced(part, other, part.content[one])


def name(random: Random, part: Part) -> bytes:
    """A key or a tensor has another name."""
    place = random.choice(random.choice((part.entries, part.tensors)) or part.entries)
    name_end = place.start + 8 + struct.unpack_from("<Q", part.content, place.start)[0]
    new = random.choice((*TEXTS, "blk.0.ffn_gate_inp.weight", "split.count", "general.alignment", "blk.8.nextn.x"))
    return _replaced(part, slice(place.start, name_end), string(new))


def counts(random: Random, part: Part) -> bytes:
    """The file's first 24 bytes: magic, version, and how many tensors and keys there are."""
    content, (at, form) = bytearray(part.content), random.choice(((0, "<I"), (4, "<I"), (8, "<Q"), (16, "<Q")))
    struct.pack_into(form, content, at, random.choice(NUMBERS) & (1 << 8 * struct.calcsize(form)) - 1)
    return bytes(content)


def shorter(random: Random, part: Part) -> bytes:
    """The file ends early."""
    return part.content[: random.choice((random.randrange(len(part.content)), random.randrange(part.data)))]


def data(random: Random, part: Part) -> bytes:
    """Bytes of the tensors are others."""
    content = bytearray(part.content)
    for _ in range(random.choice((1, 3, 30))):
        at, size = random.randrange(part.data, len(content)), random.choice((1, 2, 4, 64, 4096))
        new = random.choice((bytes(size), b"\xff" * size, b"\x00\x7c" * size, random.randbytes(size)))[:size]
        content[at : at + size] = new[: len(content) - at]
    return bytes(content)


HEADER: tuple[Mutation, ...] = (bits, bits, number, number, value, value, value, repeated, name, counts, shorter)
ALL: tuple[Mutation, ...] = (*HEADER, data, data)


def _place(random: Random, part: Part) -> slice:
    return random.choice(random.choice((part.entries, part.tensors)) or part.entries)


def _replaced(part: Part, place: slice, new: bytes) -> bytes:
    """The tensors' data stays where the alignment wants it, so that only what is replaced is wrong."""
    head = part.content[: place.start] + new + part.content[place.stop : part.tensors[-1].stop]
    return head + bytes(-len(head) % 32) + part.content[part.data :]


def _value(random: Random) -> bytes:
    kind = random.choice((*range(13), 9, 9, 77))
    if kind < len(SCALARS):
        return struct.pack("<I", kind) + _scalar(random, kind)
    if kind == 8:
        return struct.pack("<I", kind) + string(random.choice(TEXTS))
    if kind == 9:
        inner, count = random.choice((*range(9), 9, 77)), random.choice((0, 1, 2, 9, 5000))
        items = [string(random.choice(TEXTS)) if inner == 8 else _scalar(random, inner) for _ in range(count)]
        return struct.pack("<IIQ", kind, inner, count) + b"".join(items)
    return struct.pack("<IQ", kind, random.choice(NUMBERS))


def _scalar(random: Random, kind: int) -> bytes:
    if kind == 6:
        return struct.pack("<f", random.choice(FLOATS))
    size = struct.calcsize(SCALARS[kind]) if kind < len(SCALARS) else 4
    return (random.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")
