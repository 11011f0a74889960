"""What is kept of a finished block besides its chunks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from ..remote import RequestError
from .store import ZarrArray

ABSENT = -1
"""Fill value of the records' array: a block without a record."""

_AT_ONCE = 10_000
"""Rows that are read together."""

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


class Records(Mapping[int, Record]):
    """Records by their blocks, as one table of numbers: an image may have millions of blocks."""

    def __init__(self, blocks: int, classes: int) -> None:
        """Hold none yet.

        Args:
            blocks: Blocks that there are.
            classes: Labels that are counted.
        """
        self._rows = np.full((blocks, classes + 2), ABSENT, np.int64)
        self._count = 0

    def add(self, record: Record) -> None:
        """Hold one more."""
        self._count += record.block not in self
        self._rows[record.block] = _row_of(record)

    def __contains__(self, block: object) -> bool:
        return isinstance(block, int) and bool(self._rows[block, 0] != ABSENT)

    def __getitem__(self, block: int) -> Record:
        if block not in self:
            raise KeyError(block)
        return _record_of(block, self._rows[block])

    def __iter__(self) -> Iterator[int]:
        return (block for block in range(len(self._rows)) if block in self)

    def __len__(self) -> int:
        return self._count

    def total(self) -> Record:
        """Return the sum of all, as the record of one block that they would make."""
        there = self._rows[:, :1] != ABSENT
        return _record_of(ABSENT, self._rows.sum(axis=0, where=there))

    def not_computed(self) -> dict[int, int]:
        """Return the blocks for which the network gave NaN or infinity, and for how many pixels."""
        column = self._rows[:, -2]
        return {int(block): int(column[block]) for block in np.flatnonzero(column > 0)}


def _row_of(record: Record) -> tuple[int, ...]:
    return (*record.pixels, record.not_computed, record.filled)


def _record_of(block: int, row: NDArray[np.int64]) -> Record:
    *pixels, not_computed, filled = row.tolist()
    return Record(block, tuple(pixels), not_computed, filled)


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
    array[record.block] = np.array(_row_of(record))


def read_records(array: ZarrArray, blocks: NDArray[np.integer]) -> Iterator[Record]:
    """Yield the records of some blocks; what is not there or cannot be decoded is none."""
    for block, row in read_rows(array, blocks):
        if row[0] != ABSENT:
            yield _record_of(block, row)


def read_rows(
    array: ZarrArray, blocks: NDArray[np.integer]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield some blocks and their rows of an array ``(block, figure)``.

    What cannot be decoded of it has the fill value.

    Args:
        array: The array.
        blocks: Numbers of the blocks, in rising order.

    Raises:
        RequestError: A store at a URL does not answer, which tells nothing of what it holds.
    """
    for first in range(0, len(blocks), _AT_ONCE):
        some: Any = blocks[first : first + _AT_ONCE]
        try:
            rows: Any = array.oindex[some]
        except RequestError:
            raise
        except Exception:  # stores and codecs each raise their own
            rows = [_row(array, block) for block in some.tolist()]
        yield from zip(some.tolist(), rows, strict=True)


def _row(array: ZarrArray, block: int) -> NDArray[Any]:
    try:
        return np.asarray(array[block])
    except RequestError:
        raise
    except Exception:  # a power cut may have taken a part of it
        return np.full(array.shape[1], array.fill_value, array.dtype)
