"""Connected objects of a label image that is read block by block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box


class Union:
    """Sets that are merged: each starts with one member, 0, 1, 2 and so on."""

    def __init__(self) -> None:
        self._parent = np.zeros(1024, np.int64)
        self.size = 0

    def add(self, count: int) -> int:
        """Add so many sets of one member; return the first's number."""
        first, self.size = self.size, self.size + count
        if self.size > self._parent.size:
            grown = np.zeros(max(self.size, 2 * self._parent.size), np.int64)
            grown[:first] = self._parent[:first]
            self._parent = grown
        self._parent[first : self.size] = np.arange(first, self.size)
        return first

    def find(self, member: int) -> int:
        """Return the least member of a member's set."""
        parent = self._parent
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = int(parent[member])
        return member

    def merge(self, one: int, other: int) -> None:
        """Make one set of two."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def roots(self) -> NDArray[np.int64]:
        """Return the least member of the set of each member."""
        parent = self._parent[: self.size]
        while True:
            above = parent[parent]
            if np.array_equal(above, parent):
                return parent.copy()
            parent = above


class Components:
    """Numbers the connected parts of one label, by blocks that come row by row.

    Parts are connected by their sides. A block is joined with the one above and the one to its
    left, of which only the last row and column are kept. Numbers are provisional until
    :meth:`roots` says which are parts of one object; label 0 has none.

    ::

        done        | done
        ------------+----------   last row of the blocks above
        last column | this one
    """

    def __init__(self, width: int) -> None:
        """Begin an image.

        Args:
            width: Its width in pixels.
        """
        self.union = Union()
        self.union.add(1)  # number 0 is none
        self._labels = [np.zeros(1, np.int64)]
        # Number and label of the last rows and column.
        self._above = np.zeros((2, width), np.int64)
        self._left = np.zeros((2, 0), np.int64)

    def add(self, box: Box, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the provisional numbers of a block's pixels, 0 for label 0.

        Args:
            box: Where it is; of one row of blocks, all have the same height.
            labels: Its labels, ``(y, x)``.
        """
        from scipy import ndimage

        numbers = np.zeros(labels.shape, np.int64)
        for label in np.unique(labels[labels != 0]):
            parts, count = ndimage.label(labels == label)
            first = self.union.add(count)
            numbers = np.where(parts > 0, parts + (first - 1), numbers)
            self._labels.append(np.full(count, label, np.int64))
        if box.y.start > 0:
            self._join(self._above[:, box.x.as_slice()], numbers[0], labels[0])
        if box.x.start > 0:
            self._join(self._left, numbers[:, 0], labels[:, 0])
        self._above[:, box.x.as_slice()] = numbers[-1], labels[-1]
        self._left = np.stack([numbers[:, -1], labels[:, -1].astype(np.int64)])
        return numbers

    def _join(
        self, before: NDArray[np.int64], numbers: NDArray[np.int64], labels: NDArray[Any]
    ) -> None:
        same = (before[1] == labels) & (numbers > 0)
        pairs = np.unique(np.stack([before[0][same], numbers[same]], axis=1), axis=0)
        for one, other in pairs.tolist():
            self.union.merge(one, other)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of each number; the first stands for none."""
        return np.concatenate(self._labels)

    def roots(self) -> NDArray[np.int64]:
        """Return the object of each provisional number, named by its least one."""
        return self.union.roots()


class Identities:
    """As ``Components``, for labels that are the objects' own numbers."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def add(self, box: Box, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers of a block's pixels, counted in the order they appear."""
        values, places = np.unique(labels, return_inverse=True)
        numbers = [
            0 if value == 0 else self._known.setdefault(int(value), len(self._known) + 1)
            for value in values
        ]
        return np.array(numbers, np.int64)[places].reshape(labels.shape)

    @property
    def labels(self) -> NDArray[np.int64]:
        """1 for each object; the first stands for none."""
        return (np.arange(len(self._known) + 1) > 0).astype(np.int64)

    def roots(self) -> NDArray[np.int64]:
        """Return the numbers themselves."""
        return np.arange(len(self._known) + 1)
