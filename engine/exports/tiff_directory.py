"""Directories of a BigTIFF file, as bytes (BigTIFF design, TIFF 6.0 section 2)."""

import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

HEADER_BYTES = 16

SHORT, LONG, RATIONAL, DOUBLE, LONG8, IFD8, ASCII = 3, 4, 5, 12, 16, 18, 2

_FORMATS = {SHORT: "H", LONG: "I", RATIONAL: "I", DOUBLE: "d", LONG8: "Q", IFD8: "Q"}


class Tag(NamedTuple):
    """One entry of a directory."""

    kind: int
    """Type of the values."""
    values: Sequence[float] | str
    """Numbers; a ``RATIONAL`` is two of them."""


Tags: TypeAlias = dict[int, Tag]


def header(first_directory: int) -> bytes:
    """Return the first bytes of a little-endian BigTIFF file."""
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first_directory)


def directory(tags: Tags, place: int, following: int) -> bytes:
    """Return a directory and, behind it, the values that do not fit into their entries.

    The length depends on the number of values alone, so room can be kept before they are known.

    Args:
        tags: Entries by their code.
        place: Offset of the directory in the file.
        following: Offset of the next directory; 0 for none.
    """
    behind = place + 8 + 20 * len(tags) + 8
    entries, values = [], b""
    for code, tag in sorted(tags.items()):
        packed, count = _packed(tag)
        if len(packed) > 8:
            entry = struct.pack("<Q", behind + len(values))
            values += packed.ljust(-(-len(packed) // 8) * 8, b"\0")
        else:
            entry = packed.ljust(8, b"\0")
        entries.append(struct.pack("<HHQ", code, tag.kind, count) + entry)
    return b"".join([struct.pack("<Q", len(tags)), *entries, struct.pack("<Q", following), values])


def _packed(tag: Tag) -> tuple[bytes, int]:
    if isinstance(tag.values, str):
        text = tag.values.encode() + b"\0"
        return text, len(text)
    packed = struct.pack(f"<{len(tag.values)}{_FORMATS[tag.kind]}", *tag.values)
    return packed, len(tag.values) // (2 if tag.kind == RATIONAL else 1)
