"""Small NDPI slides, written for tests: each level one JPEG with restart markers."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHORT, LONG, RATIONAL, FLOAT, SLONG, ASCII = 3, 4, 5, 11, 9, 2
_FORMATS = {SHORT: "H", LONG: "I", FLOAT: "f", SLONG: "i"}
RESTART_BLOCKS = 8
"""JPEG blocks between restart markers: of 8 x 8 px, or of 16 x 16 px with colours halved."""

Tag = tuple[int, int, Sequence[float] | bytes]


def write_ndpi(
    path: Path, levels: Sequence[NDArray[np.uint8]], mpp: float = 0.25, halved: bool = False
) -> list[bytes]:
    """Write RGB levels, sizes a multiple of 128; return the JPEG of each.

    NDPI is a TIFF whose entries end in the upper halves of their values, 4 bytes each.
    """
    file = bytearray(b"II*\0" + bytes(8))
    link = 4
    jpegs = []
    for number, pixels in enumerate(levels):
        height, width = pixels.shape[:2]
        jpeg = _jpeg(pixels, halved)
        jpegs.append(jpeg)
        strip = len(file)
        file += jpeg
        per_cm = round(10_000 / (mpp * levels[0].shape[0] / height))
        tags: list[Tag] = [
            (256, LONG, [width]),
            (257, LONG, [height]),
            (258, SHORT, [8, 8, 8]),
            (259, SHORT, [7]),
            (262, SHORT, [6]),
            (271, ASCII, b"Hamamatsu\0"),
            (273, LONG, [strip]),
            (277, SHORT, [3]),
            (278, LONG, [height]),
            (279, LONG, [len(jpeg)]),
            (282, RATIONAL, [per_cm, 1]),
            (283, RATIONAL, [per_cm, 1]),
            (296, SHORT, [3]),
            (530, SHORT, [2, 2] if halved else [1, 1]),
            (65420, LONG, [1]),
            (65421, FLOAT, [40.0 / 2**number]),
            (65422, SLONG, [0]),
            (65423, SLONG, [0]),
            (65424, SLONG, [0]),
            (65426, LONG, _mcu_starts(jpeg)),
        ]
        entries = [_entry(file, *tag) for tag in tags]
        file[link : link + 8] = struct.pack("<Q", len(file))
        file += struct.pack("<H", len(entries)) + b"".join(entries)
        link = len(file)
        file += bytes(8 + 4 * len(entries))
    path.write_bytes(file)
    return jpegs


def _entry(file: bytearray, code: int, kind: int, values: Sequence[float] | bytes) -> bytes:
    if isinstance(values, bytes):
        data, count = values, len(values)
    elif kind == RATIONAL:
        data, count = struct.pack("<2I", *values), 1
    else:
        data, count = struct.pack(f"<{len(values)}{_FORMATS[kind]}", *values), len(values)
    if len(data) > 4:
        at = len(file)
        file += data
        data = struct.pack("<I", at)
    return struct.pack("<HHI", code, kind, count) + data.ljust(4, b"\0")


def _jpeg(pixels: NDArray[np.uint8], halved: bool) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(
        file,
        "JPEG",
        quality=90,
        subsampling=2 if halved else 0,
        restart_marker_blocks=RESTART_BLOCKS,
    )
    return file.getvalue()


def _mcu_starts(jpeg: bytes) -> list[int]:
    """Return where the compressed data between restart markers begin."""
    scan = jpeg.index(b"\xff\xda")
    at = scan + 2 + int(struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0])
    starts = [at]
    while True:
        at = jpeg.index(b"\xff", at) + 2
        if 0xD0 <= jpeg[at - 1] <= 0xD7:
            starts.append(at)
        if jpeg[at - 1] == 0xD9:
            return starts
