"""What a compressed segment of a TIFF says of its own size, before it is decoded.

Decoders of pictures believe the picture's header, not the file around it: one of a few bytes may
announce 65,535 x 65,535 px, and have them filled with grey where its data ends.
"""

import struct
from collections.abc import Callable
from io import BytesIO

from .raster_headers import HeaderError, jpeg_segments

JPEG = frozenset({6, 7, 34892, 33007})
_JPEG2000 = frozenset({33003, 33004, 33005, 34712})
_PNG, _WEBP = 34933, 50001

_AT_ONCE = 4
"""Frames may be larger than their segment (whole blocks, more components), but not by more."""
_SMALL_SAMPLES = 1 << 20
"""A frame up to this is decoded, whatever its segment."""

_MOST_BYTES_OF_ONE = {5: 2560, 8: 1040, 32946: 1040, 32773: 64}
"""Bytes that one byte of LZW, Deflate and PackBits unpacks to at most: 3838 in 12 bits, 258 in two,
128 in two."""


def refusal(
    compression: int, data: bytes, samples: int, needed_bytes: int, header: bytes | None = None
) -> str | None:
    """Return why a segment need not be decoded, ``None`` if it may be.

    Args:
        compression: TIFF's number of it.
        data: The segment.
        samples: Values that the whole segment has as the file says.
        needed_bytes: Bytes that its part inside the image takes unpacked.
        header: What JPEG data begins with, where it lies elsewhere.
    """
    most = _MOST_BYTES_OF_ONE.get(compression)
    if most is not None and most * (len(data) + 64) < needed_bytes:
        return f"{len(data)} bytes cannot hold them"
    frame = stated_frame(compression, (header or b"") + data)
    if frame is None:
        return None
    height, width, components = frame
    if height * width * components <= max(_AT_ONCE * samples, _SMALL_SAMPLES):
        return None
    return f"they are said to lie in a picture of {height} x {width} px, larger than its segment"


def stated_frame(compression: int, data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and components that a picture's header states, ``None`` if unknown."""
    read = _READERS.get(compression)
    try:
        return read(data) if read else None
    except (struct.error, HeaderError):
        return None  # the decoder says what is wrong


def _jpeg(data: bytes) -> tuple[int, int, int] | None:
    largest: tuple[int, int, int] | None = None
    for marker, at in jpeg_segments(BytesIO(data)):
        # Frame headers are C0 to CF but for tables (C4, CC) and the reserved C8.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, at + 1)
            largest = max(largest or (0, 0, 0), (height, width, components))
    return largest


def _jpeg2000(data: bytes) -> tuple[int, int, int] | None:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return None
    x1, y1, x0, y0 = struct.unpack_from(">4I", data, at + 8)
    (components,) = struct.unpack_from(">H", data, at + 40)
    return max(0, y1 - y0), max(0, x1 - x0), components


def _png(data: bytes) -> tuple[int, int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width, 4


def _webp(data: bytes) -> tuple[int, int, int] | None:
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return height & 0x3FFF, width & 0x3FFF, 4
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 4
        case b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
            return height, width, 4
    return None


_READERS: dict[int, Callable[[bytes], tuple[int, int, int] | None]] = {
    **dict.fromkeys(JPEG, _jpeg),
    **dict.fromkeys(_JPEG2000, _jpeg2000),
    _PNG: _png,
    _WEBP: _webp,
}
