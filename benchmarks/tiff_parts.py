"""Where the parts of a sound TIFF lie that other parts depend on."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

WIDTH = 256
OFFSETS, BYTE_COUNTS = (273, 324), (279, 325)
"""Tags, of strips and of tiles."""

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SIZES |= {16: 8, 17: 8, 18: 8}
INTEGERS = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""Bytes of a value of each type, and how :mod:`struct` calls those of whole numbers."""


class Entry(NamedTuple):
    """One entry of a directory."""

    at: int
    """Where it lies."""
    tag: int
    kind: int
    values: int
    """How many."""
    value_at: int
    """Where its values lie: in the entry itself where they fit."""


class Directories(NamedTuple):
    """Where the parts of a file are that other parts depend on."""

    order: str
    """Of bytes, ``<`` or ``>``."""
    big: bool
    """BigTIFF."""
    entries: tuple[Entry, ...]
    starts: tuple[int, ...]
    """Where each directory begins."""
    nexts: tuple[int, ...]
    """Where each directory says where the next one begins."""

    @property
    def offset(self) -> str:
        """How a place in the file is written."""
        return self.order + ("Q" if self.big else "I")


def directories(data: bytes) -> Directories:
    """Find the directories of a sound file."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    head, number, entry = (8, "Q", "HHQ8s") if big else (4, "H", "HHI4s")
    offset = "Q" if big else "I"
    waiting = list(struct.unpack_from(order + offset, data, head))
    entries: list[Entry] = []
    starts: list[int] = []
    nexts: list[int] = []
    while waiting:
        at = waiting.pop()
        if not at or at in starts or at + 8 > len(data):
            continue
        starts.append(at)
        (count,) = struct.unpack_from(order + number, data, at)
        at += struct.calcsize(number)
        for _ in range(count):
            tag, kind, values, _ = struct.unpack_from(order + entry, data, at)
            inline = values * SIZES.get(kind, 1) <= struct.calcsize(offset)
            value_at = at + struct.calcsize(order + entry) - struct.calcsize(offset)
            if not inline:
                (value_at,) = struct.unpack_from(order + offset, data, value_at)
            entries.append(Entry(at, tag, kind, values, value_at))
            if tag == 330 and kind in INTEGERS and value_at + 8 * values <= len(data):
                waiting += struct.unpack_from(f"{order}{values}{INTEGERS[kind]}", data, value_at)
            at += struct.calcsize(order + entry)
        if at + struct.calcsize(offset) > len(data):
            break
        nexts.append(at)
        waiting += struct.unpack_from(order + offset, data, at)
    return Directories(order, big, tuple(entries), tuple(starts), tuple(nexts))


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield place and length of the segments of all pages."""
    parts = directories(data)
    pages: list[dict[int, tuple[int, ...]]] = [{}]
    for entry in parts.entries:
        if entry.tag == WIDTH:
            pages.append({})
        if entry.tag in OFFSETS + BYTE_COUNTS and entry.kind in INTEGERS:
            code = f"{parts.order}{entry.values}{INTEGERS[entry.kind]}"
            pages[-1][entry.tag] = struct.unpack_from(code, data, entry.value_at)
    for page in pages:
        for places, lengths in zip(OFFSETS, BYTE_COUNTS, strict=True):
            yield from zip(page.get(places, ()), page.get(lengths, ()), strict=False)


def put(data: bytearray, at: int, size: int, number: int, order: str) -> None:
    """Write a number of ``size`` bytes, cut to those that fit, if its place is inside the file."""
    if 0 <= at <= len(data) - size:
        kept = (number % (1 << 8 * size)).to_bytes(size, "little")
        data[at : at + size] = kept if order == "<" else kept[::-1]
