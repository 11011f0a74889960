"""Damage a TIFF, at random or where it hurts: the entries of its directories."""

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

from tiff_parts import BYTE_COUNTS, INTEGERS, OFFSETS, SIZES, WIDTH, directories, put, segments

Rng = np.random.Generator

LENGTH, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 257, 259, 262, 270
TAGS = {
    "width": (WIDTH,),
    "length": (LENGTH,),
    "tile size": (322, 323),
    "rows per strip": (278,),
    "offsets": OFFSETS,
    "byte counts": BYTE_COUNTS,
    "compression": (COMPRESSION,),
    "photometric": (PHOTOMETRIC,),
    "samples": (277, 258, 338, 339),
    "layout": (284, 317, 266, 32997, 32998),
    "sub-images": (330,),
    "subsampling": (530, 347, 512),
}
"""Tags by what they mean."""

_COMPRESSIONS = (
    *range(1, 9),
    *(32773, 32946, 33003, 33005, 33007, 34712, 34887, 34892),
    *(34925, 34933, 34934, 50000, 50001, 50002, 52546, 65000, 65001),
)


def _bits(data: bytearray, rng: Rng) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 64)):
        data[place] ^= 1 << int(rng.integers(8))


def _run(data: bytearray, rng: Rng) -> None:
    length = int(rng.integers(1, min(512, len(data))))
    at = int(rng.integers(0, len(data) - length + 1))
    random = rng.bytes(length)
    data[at : at + length] = (b"\0" * length, b"\xff" * length, random)[int(rng.integers(3))]


def _cut(data: bytearray, rng: Rng) -> None:
    del data[int(rng.integers(0, len(data))) :]


def _header(data: bytearray, rng: Rng) -> None:
    for place in rng.integers(2, 16, rng.integers(1, 4)):
        data[place] = int(rng.integers(256))


def _odd_number(data: bytearray, before: int, rng: Rng) -> int:
    """Return a number that a reader may not have expected."""
    common = [0, 1, 2, 3, 7, 8, 15, 16, 255, 256, 32768, 65535, 1 << 24, (1 << 31) - 1, 1 << 31]
    common += [(1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, len(data), len(data) - 1]
    common += [before + 1, max(0, before - 1), 2 * before, before // 2, 1000 * before]
    common += [int(rng.integers(1 << 16)), int(rng.integers(len(data)))]
    return common[int(rng.integers(len(common)))]


def tag_changer(tags: tuple[int, ...]) -> Callable[[bytearray, Rng], None]:
    """Return what gives one of these tags another value, in one directory or in all."""

    def change(data: bytearray, rng: Rng) -> None:
        parts = directories(bytes(data))
        found = [e for e in parts.entries if e.tag in tags and e.kind in INTEGERS and e.values]
        if not found:
            _any_entry(data, rng)
            return
        chosen = found[int(rng.integers(len(found)))]
        same = [e for e in found if e.tag == chosen.tag] if rng.integers(2) else [chosen]
        number = None
        for entry in same:
            code = parts.order + INTEGERS[entry.kind]
            size = struct.calcsize(code)
            places = range(entry.values)
            if entry.values > 1 and rng.integers(2):
                places = range(k := int(rng.integers(entry.values)), k + 1)
            for place in places:
                at = entry.value_at + place * size
                if at + size > len(data):
                    continue
                if number is None:
                    number = _odd_number(data, struct.unpack_from(code, data, at)[0], rng)
                    if entry.tag == COMPRESSION and rng.integers(3):
                        number = _COMPRESSIONS[int(rng.integers(len(_COMPRESSIONS)))]
                put(data, at, size, number, parts.order)

    return change


def _any_entry(data: bytearray, rng: Rng) -> None:
    """Change a field of an entry itself: tag, type, count, or the place of its values."""
    parts = directories(bytes(data))
    entry = parts.entries[int(rng.integers(len(parts.entries)))]
    size = 8 if parts.big else 4
    at, length = ((0, 2), (2, 2), (4, size), (4 + size, size))[int(rng.integers(4))]
    number = int(rng.integers(20)) if at == 2 else _odd_number(data, entry.values, rng)
    put(data, entry.at + at, length, number, parts.order)


def _chain(data: bytearray, rng: Rng) -> None:
    """Let a directory be followed by one that was there already, or by anything."""
    parts = directories(bytes(data))
    places = parts.nexts if rng.integers(3) else (parts.nexts[-1],)
    at = places[int(rng.integers(len(places)))]
    targets = [*parts.starts, len(data) - 2, int(rng.integers(8, len(data))), 1 << 31]
    target = targets[int(rng.integers(len(targets)))]
    struct.pack_into(parts.offset, data, at, target)


def _again(data: bytearray, rng: Rng) -> None:
    """Let the first directory list one long value, or its own entries, many times."""
    parts = directories(bytes(data))
    length, size, number = (20, 8, "Q") if parts.big else (12, 4, "H")
    at = parts.starts[0]
    (count,) = struct.unpack_from(parts.order + number, data, at)
    at += struct.calcsize(number)
    listed = bytes(data[at : at + length * count])
    entry = bytearray(listed[(k := length * int(rng.integers(count))) : k + length])
    if rng.integers(2):
        struct.pack_into(parts.order + "H", entry, 2, 4)
        put(entry, 4, size, (len(data) - 8) // 4, parts.order)
        put(entry, 4 + size, size, 8, parts.order)
    times = int(rng.integers(1, 4000))
    begin = len(data)
    data += struct.pack(parts.order + number, count + times) + listed + entry * times
    data += struct.pack(parts.offset, 0)
    put(data, 8 if parts.big else 4, size, begin, parts.order)


def _description(data: bytearray, rng: Rng) -> None:
    """Let a description (OME-XML, ImageJ's, JSON, Aperio's) state another number."""
    parts = directories(bytes(data))
    found = [e for e in parts.entries if e.tag == DESCRIPTION and e.values > 8]
    if not found:
        _any_entry(data, rng)
        return
    entry = found[int(rng.integers(len(found)))]
    text = bytes(data[entry.value_at : entry.value_at + entry.values])
    numbers = list(re.finditer(rb"\d+", text))
    odd = b"%d" % (_odd_number(data, 100, rng) * (1 if rng.integers(4) else -1))
    if numbers:
        chosen = numbers[int(rng.integers(len(numbers)))]
        text = text[: chosen.start()] + odd + text[chosen.end() :]
    size = 8 if parts.big else 4
    put(data, entry.at + 4, size, len(text), parts.order)
    put(data, entry.at + 4 + size, size, len(data), parts.order)
    data += text


def _frame(data: bytearray, rng: Rng) -> None:
    """Let a segment's own header state another size, where its codec has one."""
    found = list(segments(bytes(data)))
    if not found:
        _bits(data, rng)
        return
    chosen = found if rng.integers(2) else [found[int(rng.integers(len(found)))]]
    big = int(rng.integers(3))
    for at, length in chosen:
        segment = bytes(data[at : at + length])
        for magic, first, size, order in (
            (b"\xff\xc0", 5, 2, ">"),  # JPEG: marker, length, bits, height, width
            (b"\xff\x51", 6, 4, ">"),  # JPEG 2000: marker, length, kind, width, height
            (b"IHDR", 4, 4, ">"),
            (b"VP8 ", 14, 2, "<"),
            (b"Lerc2 ", 14, 4, "<"),
        ):
            where = segment.find(magic)
            if where < 0:
                continue
            for place in (first, first + size)[: 1 + int(rng.integers(2))]:
                put(data, at + where + place, size, (65500, 20000, 1 << 30)[big], order)
            break
        else:  # the codec's first bytes
            stop = min(length, 24)
            if stop:
                data[at + int(rng.integers(stop))] = int(rng.integers(256))


def _bomb(data: bytearray, rng: Rng) -> None:
    """Let a segment be one that inflates to 4 GB."""
    parts = directories(bytes(data))
    squeezed = zlib.compressobj(9)
    once = squeezed.compress(bytes(1 << 20)) + squeezed.flush(zlib.Z_FULL_FLUSH)
    again = squeezed.compress(bytes(1 << 20)) + squeezed.flush(zlib.Z_FULL_FLUSH)
    bomb = once + again * 4095
    kind = 8
    if rng.integers(2):  # Zstandard: a frame of blocks that repeat one byte 128 KiB times
        blocks = b"\x02\x00\x10\x00" * (1 << 14)
        bomb, kind = b"\x28\xb5\x2f\xfd\x00\x58" + blocks + b"\x03\x00\x10\x00", 50000
    at = len(data)
    data += bomb
    for entry in parts.entries:
        number = {COMPRESSION: kind, **dict.fromkeys(OFFSETS, at)}.get(entry.tag)
        number = len(bomb) if entry.tag in BYTE_COUNTS else number
        if entry.tag in (WIDTH, LENGTH, 322, 323, 278) and rng.integers(2):
            number = 40_000
        if number is None or entry.kind not in INTEGERS:
            continue
        size = SIZES[entry.kind]
        for place in range(entry.values):
            begin = entry.value_at + place * size
            if begin + size <= at:
                put(data, begin, size, number, parts.order)


MUTATIONS: dict[str, Callable[[bytearray, Rng], None]] = {
    "bits": _bits,
    "run": _run,
    "cut": _cut,
    "header": _header,
    "entry": _any_entry,
    "chain": _chain,
    "again": _again,
    "description": _description,
    "segment": _frame,
    "bomb": _bomb,
    **{name: tag_changer(tags) for name, tags in TAGS.items()},
}
"""Ways to damage a file."""


def damaged(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Return a file damaged in one way, or sometimes in two, and in which."""
    names = list(MUTATIONS)
    first = names[int(rng.integers(len(names)))]
    changed = bytearray(data)
    try:
        MUTATIONS[first](changed, rng)
        if rng.integers(4) == 0 and len(changed) > 16:
            MUTATIONS[names[int(rng.integers(len(names)))]](changed, rng)
    except (struct.error, IndexError, ValueError):  # the directories of the first are gone
        _bits(changed, rng)
    return bytes(changed), first
