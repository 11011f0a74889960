"""Which found objects are true ones: those that share more than half of what both cover."""

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box
from ..tiler.errors import SettingError
from .components import Components, Identities
from .measures import Counts

LEAST_IOU = 0.5
"""From here on, an object has one partner at most."""


class Matching:
    """Counts objects of a mask and its truth while both are read block by block."""

    def __init__(self, width: int, instances: bool, min_size: int, iou: float) -> None:
        """Begin.

        Args:
            width: Of both in pixels.
            instances: Whether the truth's labels are objects; else, as in the mask, objects are
                the pixels of one class that are connected by their sides.
            min_size: Objects of fewer pixels do not count, in either.
            iou: Intersection over union above which two objects are the same.

        Raises:
            SettingError: A number is not possible.
        """
        if min_size < 1:
            raise SettingError(f"min_size={min_size} is not possible; use 1 or more")
        if not LEAST_IOU <= iou < 1:
            raise SettingError(
                f"iou={iou} is not possible; use {LEAST_IOU} or more, and less than 1"
            )
        self.min_size, self.iou = min_size, iou
        self.found: Components = Components(width)
        self.true: Components | Identities = Identities() if instances else Components(width)
        self._common = np.zeros((0, 3), np.int64)
        self._pending: list[NDArray[np.int64]] = []

    def add(self, box: Box, found: NDArray[np.int64], true: NDArray[np.int64]) -> None:
        """Take the next block, row by row, of labels ``(y, x)``."""
        one, other = self.found.add(box, found), self.true.add(box, true)
        # 32 bits each: how often each two numbers meet, 0 being none.
        pairs, counts = np.unique((one << 32 | other).ravel(), return_counts=True)
        self._pending.append(np.stack([pairs >> 32, pairs & 0xFFFFFFFF, counts], axis=1))
        if sum(map(len, self._pending)) > 100_000 + len(self._common):
            self._collect()

    def _collect(self) -> None:
        rows = np.concatenate([self._common, *self._pending])
        pairs, places = np.unique(rows[:, :2], axis=0, return_inverse=True)
        counts = np.zeros(len(pairs), np.int64)
        np.add.at(counts, places.ravel(), rows[:, 2])
        self._common = np.column_stack([pairs, counts])
        self._pending = []

    def counts(self) -> dict[int, Counts]:
        """Return how the objects of each class were found; 1 is the class of instances."""
        self._collect()
        found_root, true_root = self.found.roots(), self.true.roots()
        common = self._common.copy()
        common[:, 0], common[:, 1] = found_root[common[:, 0]], true_root[common[:, 1]]
        self._common, self._pending = common, []
        self._collect()
        found, true, shared = self._common.T
        sizes = np.bincount(found, shared, minlength=found_root.size).astype(np.int64)
        true_sizes = np.bincount(true, shared, minlength=true_root.size).astype(np.int64)
        sizes[0] = true_sizes[0] = 0
        union = sizes[found] + true_sizes[true] - shared
        large = np.minimum(sizes[found], true_sizes[true]) >= self.min_size
        labels, true_labels = self.found.labels, self.true.labels
        same = labels[found] == true_labels[true]
        matched = (found > 0) & (true > 0) & large & same & (shared > self.iou * union)
        result = {}
        for label in np.union1d(labels[1:], true_labels[1:]).tolist():
            both = int((matched & (labels[found] == label)).sum())
            all_found = int(((sizes >= self.min_size) & (labels == label)).sum())
            all_true = int(((true_sizes >= self.min_size) & (true_labels == label)).sum())
            result[int(label)] = Counts(both, all_found - both, all_true - both)
        return result
