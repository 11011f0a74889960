"""Size and pixel type of PNG, JPEG, JPEG 2000 and BMP files, told before decoding."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_MOST_FILL_BYTES = 1 << 16
"""A damaged file may be full of them; each costs a read."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its pixels."""

    height: int
    """In pixels."""
    width: int
    """In pixels."""
    channels: int | None
    """Channels once decoded; ``None`` where only decoding tells."""
    dtype: str
    """NumPy name of the pixel type once decoded."""
    alpha: int | None = None
    """The channel that is transparency."""

    @property
    def samples(self) -> int:
        """Values of the decoded image, four channels where it does not say."""
        return self.height * self.width * (self.channels or 4)

    def announces(self, shape: tuple[int, ...], dtype: str) -> bool:
        """Say whether decoded pixels, ``(y, x, channel)``, are what the header says."""
        channels = self.channels or shape[-1]
        return (self.height, self.width, channels) == shape and self.dtype == dtype


class HeaderError(ValueError):
    """A header that is cut short, broken, or of a kind that is not read."""


def png_header(file: BinaryIO) -> Header:
    """Read a PNG's header: a palette becomes RGB, a transparent colour becomes alpha."""
    width, height, bits, colour = struct.unpack(">IIBB", _exactly(file, 16, 10))
    transparent = False
    at = 8
    while True:  # tRNS lies before the pixels
        length, kind = struct.unpack(">I4s", _exactly(file, at, 8))
        if kind == b"IDAT":
            break
        transparent = transparent or kind == b"tRNS"
        at += 12 + length
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(colour)
    if channels is None:
        raise HeaderError(f"colour type {colour} is none of PNG's")
    has_alpha = colour in (4, 6) or transparent
    if colour not in (4, 6):
        channels += transparent
    dtype = "uint16" if bits == 16 else "uint8"
    return Header(height, width, channels, dtype, channels - 1 if has_alpha else None)


def jpeg_header(file: BinaryIO) -> Header:
    """Read a JPEG's frame header.

    Raises:
        HeaderError: It is broken, or the picture is CMYK.
    """
    for marker, at in jpeg_segments(file):
        # Frame headers are C0 to CF but for tables (C4, CC) and the reserved C8.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack(">BHHB", _exactly(file, at, 6))
            if channels not in (1, 3):
                raise HeaderError(f"{channels} channels (inks) are not read, only grey and RGB")
            return Header(height, width, channels, "uint8" if bits <= 8 else "uint16")
    raise HeaderError("it has no frame")


def jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield marker and place of the content of each segment, up to the first scan's."""
    at, filled = 2, 0
    while True:
        mark, marker = _exactly(file, at, 2)
        if mark != 0xFF or filled > _MOST_FILL_BYTES:
            raise HeaderError(f"no marker at byte {at}")
        if marker == 0xFF:  # markers may be preceded by any number of these
            at += 1
            filled += 1
            continue
        yield marker, at + 4
        if marker == 0xDA:
            return
        at += 2 + int(struct.unpack(">H", _exactly(file, at + 2, 2))[0])


def jpeg2000_header(file: BinaryIO) -> Header:
    """Read the header of a JPEG 2000 codestream, bare or inside a JP2 file."""
    alpha, has_palette, at = None, False, 0
    if _exactly(file, 0, 4) != b"\xff\x4f\xff\x51":
        for kind, at, length in _boxes(file, 0, None):
            if kind == b"jp2c":
                break
            if kind == b"jp2h":
                for inner, start, size in _boxes(file, at, at + length):
                    has_palette = has_palette or inner == b"pclr"
                    if inner == b"colr":
                        _check_colours(_exactly(file, start, min(size, 7)))
                    if inner == b"cdef":
                        alpha = _alpha(_exactly(file, start, size))
        else:
            raise HeaderError("it has no codestream")
    x1, y1, x0, y0 = struct.unpack(">4I", _exactly(file, at + 8, 16))
    (channels,) = struct.unpack(">H", _exactly(file, at + 40, 2))
    if channels == 0:
        raise HeaderError("it has no channels")
    kinds = _exactly(file, at + 42, 3 * channels)
    precision = kinds[0]
    bits = (precision & 0x7F) + 1
    dtype = f"{'' if precision & 0x80 else 'u'}int{8 if bits <= 8 else 16 if bits <= 16 else 32}"
    plain = not has_palette and kinds == bytes([precision, 1, 1]) * channels
    return Header(y1 - y0, x1 - x0, channels if plain else None, dtype, alpha)


def bmp_header(file: BinaryIO) -> Header:
    """Read a BMP's size; only decoding tells whether its palette is grey.

    The decoder trusts the header, so all that says where the pixels lie is checked here.

    Raises:
        HeaderError: It is compressed, of OS/2, or does not hold the pixels it announces.
    """
    at, head, width, height = struct.unpack("<IIii", _exactly(file, 10, 16))
    _, bits, compression = struct.unpack("<HHI", _exactly(file, 26, 8))
    (colours,) = struct.unpack("<I", _exactly(file, 46, 4))
    if head not in (40, 52, 56, 108, 124) or compression not in (0, 3, 6):
        raise HeaderError(f"header of {head} bytes with compression {compression} is not read")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise HeaderError(f"{bits} bits per pixel are none of BMP's")
    row_bytes = (abs(width) * bits + 31) // 32 * 4
    palette = 4 * (colours or 1 << bits) if bits <= 8 else 0
    if colours > 256 or width < 1 or at < 14 + head + palette:
        raise HeaderError("it says nothing sound about where its pixels lie")
    if at + row_bytes * abs(height) > file.seek(0, os.SEEK_END):
        raise HeaderError("the file ends before its last pixels")
    return Header(abs(height), width, None, "uint8")


def _boxes(file: BinaryIO, at: int, end: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and length of the content of each box of a JP2 file."""
    stop = file.seek(0, os.SEEK_END) if end is None else end
    while at + 8 <= stop:
        length, kind = struct.unpack(">I4s", _exactly(file, at, 8))
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", _exactly(file, at + 8, 8))
            head = 16
        elif length == 0:
            length = stop - at
        if length < head:
            raise HeaderError(f"the box at byte {at} has no length")
        yield kind, at + head, length - head
        at += length


def _check_colours(box: bytes) -> None:
    kinds = {12: "CMYK", 13: "YCCK", 14: "CIELab", 24: "e-sYCC"}
    if len(box) == 7 and box[0] == 1 and (space := struct.unpack(">I", box[3:])[0]) in kinds:
        raise HeaderError(f"{kinds[space]} colours are not read, only grey and RGB")


def _alpha(definition: bytes) -> int | None:
    for at in range(2, len(definition) - 5, 6):
        channel, kind = struct.unpack(">HH", definition[at : at + 4])
        if kind in (1, 2):
            return int(channel)
    return None


def _exactly(file: BinaryIO, at: int, length: int) -> bytes:
    file.seek(at)
    data = file.read(length)
    if len(data) < length:
        raise HeaderError("the file ends in its header")
    return data
