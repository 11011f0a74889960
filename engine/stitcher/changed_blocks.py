"""What blocks were run with where memory ran out, kept with them: smaller tiles, fewer at once."""

from typing import Any

import numpy as np
import zarr
from zarr.errors import ContainsArrayError

from .records import read_rows
from .store import ZarrArray, present_chunks

_NAME = "changed"


def open_changed(ours: zarr.Group) -> ZarrArray | None:
    """Return the array of what was changed; ``None`` where nothing was."""
    found = ours.get(_NAME)
    return found if isinstance(found, zarr.Array) else None


def begun_changed(ours: zarr.Group, blocks: int) -> ZarrArray:
    """Return the array ``(block, figure)``: a tile's height and width, and how many at once.

    All are 0, and take no file, for a block that was run as planned. It is made unless another
    process was first.
    """
    try:
        return open_changed(ours) or ours.create_array(
            _NAME,
            shape=(blocks, 3),
            chunks=(1, 3),
            dtype="int64",
            fill_value=0,
            compressors=None,
            dimension_names=("block", "figure"),
        )
    except ContainsArrayError:
        return begun_changed(ours, blocks)


def write_changed(array: ZarrArray, block: int, less: tuple[int, int, int] | None) -> None:
    """Store what a block was run with, before its record."""
    array[block] = np.array(less or (0, 0, 0))


def changed_blocks(array: ZarrArray | None) -> list[dict[str, Any]]:
    """Return what was changed and the blocks that it covers, the largest tile first.

    Each entry has ``tile``, height and width in pixels of the smallest that was run; ``batch``,
    how many at once; and ``blocks``.
    """
    if array is None:
        return []
    found: dict[tuple[int, ...], list[int]] = {}
    there = np.flatnonzero(present_chunks(array.store, array)[:, 0])
    for block, row in read_rows(array, there):
        if row.any():
            found.setdefault(tuple(row.tolist()), []).append(block)
    return [
        {"tile": [height, width], "batch": batch, "blocks": blocks}
        for (height, width, batch), blocks in sorted(found.items(), reverse=True)
    ]
