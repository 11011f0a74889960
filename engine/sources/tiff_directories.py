"""Check the chain of a TIFF's directories before all of them are read."""

import struct
from typing import Any

from ...tiler.errors import ImageError

_MOST_ENTRIES = 4096
"""Of a directory; tifffile, too, takes more for a sign of damage."""


def check_directories(tiff: Any, path: str) -> None:
    """Refuse a file whose directories lead in a circle, or lie upon each other.

    Both cost a reader any amount of time. A chain that ends too early is left to tifffile.

    Args:
        tiff: The open ``tifffile.TiffFile``.
        path: For the error.

    Raises:
        ImageError: The directories are of one of these kinds.
    """
    file, form = tiff.filehandle, tiff.tiff
    kept_place = file.tell()
    try:
        _walk(file, form, path)
    finally:
        file.seek(kept_place)


def _walk(file: Any, form: Any, path: str) -> None:
    file.seek(8 if form.is_bigtiff else 4)
    place = _number(file, form.offsetformat, form.offsetsize)
    seen: set[int] = set()
    total_bytes = 0
    while place and place < file.size:
        if place in seen:
            raise ImageError(
                f"the directories of a TIFF follow each other; those of {path} lead back to "
                f"byte {place} after {len(seen)} of them; get a good copy"
            )
        seen.add(place)
        file.seek(place)
        count = _number(file, form.tagnoformat, form.tagnosize)
        if count is None or count > _MOST_ENTRIES:
            return
        total_bytes += count * form.tagsize
        if total_bytes > file.size:
            raise ImageError(
                f"the directories of a TIFF lie side by side; {len(seen)} of {path} would "
                f"need {total_bytes} bytes of its {file.size}; get a good copy"
            )
        file.seek(place + form.tagnosize + count * form.tagsize)
        place = _number(file, form.offsetformat, form.offsetsize)


def _number(file: Any, code: str, size: int) -> int | None:
    data = file.read(size)
    return int(struct.unpack(code, data)[0]) if len(data) == size else None
