"""Check a TIFF's directories before tifffile reads all that they list."""

import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import ImageError
from ..url import Location

_MOST_ENTRIES = 4096
"""Of a directory; tifffile, too, takes more for a sign of damage."""

_MOST_TIMES = 4
_LITTLE_BYTES = 1 << 16
"""Values of entries may be shared by several, but all of them together are not larger than the file
by more than this factor, and this."""

_TABLES = (273, 279, 324, 325)
"""Tags that say where strips and tiles lie, and how long they are; each page has its own."""
_SUB_IMAGES = 330

_TYPE_BYTES = np.zeros(1 << 16, np.uint64)
_TYPE_BYTES[:19] = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8]


class _Form(NamedTuple):
    """How a kind of TIFF writes a directory."""

    order: str
    number: str
    offset: str
    entry: np.dtype[np.void]

    @property
    def is_ndpi(self) -> bool:
        """Whether it is Hamamatsu's: a classic TIFF with places of 64 bits."""
        return self.number == "H" and self.offset == "Q"


def check_directories(
    path: Location, file: BinaryIO, size_bytes: int, most: int | None = None
) -> None:
    """Refuse a file whose directories would cost a reader any amount of time or memory.

    That are those which lead in a circle or lie upon each other, and those that list the same large
    value again and again. What else is wrong is left to tifffile.

    Args:
        path: Where the file is.
        file: The file, opened at its beginning.
        size_bytes: Its length.
        most: Directories to look at, from the first on; all where ``None``.

    Raises:
        ImageError: The directories are of one of these kinds.
    """
    form, place = _start(file.read(16), path)
    listed = _Listed(size_bytes)
    seen: set[int] = set()
    while place and place < size_bytes and place not in seen and len(seen) != most:
        seen.add(place)
        directory = _directory(file, place, form)
        if directory is None:
            return
        place = _number(file, form.order + form.offset)
        images = _sub_images(file, directory, form, size_bytes)
        sound = len(set(images)) == len(images) and listed.takes(directory)
        for image in images if sound else ():
            inner = _directory(file, image, form)
            sound = sound and (inner is None or listed.takes(inner))
        if not sound:
            raise ImageError(
                f"what the directories of a TIFF list lies side by side; {len(seen)} of {path} "
                "list the same places of the file again and again; get a good copy"
            )
    if place in seen:
        raise ImageError(
            f"the directories of a TIFF follow each other; those of {path} lead back to byte "
            f"{place} after {len(seen)} of them; get a good copy"
        )


class _Listed:
    """Adds up what directories list."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._entries_bytes = self._tables_bytes = 0

    def takes(self, directory: NDArray[np.void]) -> bool:
        """Add a directory; say whether all of it can lie in the file."""
        lengths = directory["count"].astype(np.float64) * _TYPE_BYTES[directory["type"]]
        # Longer than the file: tifffile leaves such an entry out.
        lengths[lengths > self._size_bytes] = 0
        self._entries_bytes += directory.nbytes
        self._tables_bytes += int(lengths[np.isin(directory["tag"], _TABLES)].sum())
        most_bytes = _MOST_TIMES * self._size_bytes + _LITTLE_BYTES
        values_bytes = max(int(lengths.sum()), self._tables_bytes)
        return self._entries_bytes <= self._size_bytes and values_bytes <= most_bytes


def _start(head: bytes, path: Location) -> tuple[_Form, int | None]:
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    value = np.dtype(f"{order}u{8 if big else 4}")
    fields = [("tag", f"{order}u2"), ("type", f"{order}u2"), ("count", value), ("value", value)]
    offset = "Q" if big or (order == "<" and path.suffix.lower() == ".ndpi") else "I"
    form = _Form(order, "Q" if big else "H", offset, np.dtype(fields))
    at = 8 if big else 4
    code = order + offset
    stop = at + struct.calcsize(code)
    return form, struct.unpack(code, head[at:stop])[0] if stop <= len(head) else None


def _directory(file: BinaryIO, place: int, form: _Form) -> NDArray[np.void] | None:
    """Return the entries of a directory, ``None`` for one that tifffile refuses."""
    file.seek(place)
    count = _number(file, form.order + form.number)
    if count is None or count > _MOST_ENTRIES:
        return None
    data = file.read(count * form.entry.itemsize)
    return np.frombuffer(data, form.entry) if len(data) == count * form.entry.itemsize else None


def _sub_images(
    file: BinaryIO, directory: NDArray[np.void], form: _Form, size_bytes: int
) -> list[int]:
    """Return where the directories of smaller images begin, if there are several."""
    found: list[int] = []
    for entry in directory[directory["tag"] == _SUB_IMAGES]:
        count, width = int(entry["count"]), int(_TYPE_BYTES[entry["type"]])
        if form.is_ndpi or width not in (4, 8) or not 2 <= count <= size_bytes // width:
            continue
        kept_place = file.tell()
        file.seek(int(entry["value"]))
        data = file.read(count * width)
        file.seek(kept_place)
        whole = len(data) // width * width
        found += np.frombuffer(data[:whole], f"{form.order}u{width}").tolist()
    return found


def _number(file: BinaryIO, code: str) -> int | None:
    size = struct.calcsize(code)
    data = file.read(size)
    return int(struct.unpack(code, data)[0]) if len(data) == size else None
