"""What is kept of a finished block besides its chunks."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from .store import ZarrArray

ABSENT = -1
"""Fill value of the records' array: a block without a record."""

MANY_CLASSES = 20
"""From so many on, counting all at once is faster than one after the other."""


@dataclass(frozen=True, slots=True)
class Record:
    """The figures of one block; the final report is computed from these alone."""

    block: int
    """Number of the block."""
    pixels: tuple[int, ...]
    """Pixels of each label."""
    not_computed: int
    """Pixels for which the network gave NaN or infinity."""
    filled: int = 0
    """Pixels without data, which are labelled "not computed" as well."""

    @classmethod
    def of(
        cls,
        block: int,
        labels: NDArray[np.generic],
        classes: int,
        not_computed: int,
        filled: int = 0,
    ) -> "Record":
        """Count the labels of a block, of which ``filled`` are "not computed" for want of data."""
        if classes < MANY_CLASSES:
            pixels = tuple(int(np.count_nonzero(labels == label)) for label in range(classes))
        else:
            pixels = tuple(np.bincount(labels.ravel(), minlength=not_computed)[:classes].tolist())
        broken = labels.size - sum(pixels) - filled
        return cls(block, pixels, broken, filled)


def create_records(group: zarr.Group, blocks: int, classes: int) -> ZarrArray:
    """Create the array ``(block, figure)``: a chunk, so one file or object, per block."""
    return group.create_array(
        "records",
        shape=(blocks, classes + 2),
        chunks=(1, classes + 2),
        dtype="int64",
        fill_value=ABSENT,
        compressors=None,
        dimension_names=("block", "figure"),
    )


def write_record(array: ZarrArray, record: Record) -> None:
    """Store a record; from now on the block counts as done."""
    array[record.block] = np.array([*record.pixels, record.not_computed, record.filled])


def read_records(array: ZarrArray, blocks: Collection[int] | None = None) -> list[Record]:
    """Return the records there are, of some blocks or of all; what cannot be decoded is none."""
    numbers = sorted(range(array.shape[0]) if blocks is None else blocks)
    if not numbers:
        return []
    rows = read_rows(array, None if blocks is None else numbers)
    done = np.flatnonzero(rows[:, 0] != ABSENT)
    return [Record(numbers[n], tuple(rows[n, :-2].tolist()), *rows[n, -2:].tolist()) for n in done]


def read_rows(array: ZarrArray, blocks: Sequence[int] | None = None) -> NDArray[Any]:
    """Return an array ``(block, figure)``, of some blocks or of all.

    What cannot be decoded of it has the fill value.
    """
    try:
        return np.asarray(array[:] if blocks is None else array.oindex[np.array(blocks)])
    except Exception:  # stores and codecs each raise their own
        numbers = range(array.shape[0]) if blocks is None else blocks
        return np.stack([_row(array, block) for block in numbers])


def _row(array: ZarrArray, block: int) -> NDArray[Any]:
    try:
        return np.asarray(array[block])
    except Exception:  # a power cut may have taken a part of it
        return np.full(array.shape[1], array.fill_value, array.dtype)
