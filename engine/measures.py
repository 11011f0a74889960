"""Measures of a mask against the truth, from counts of pixels or of objects."""

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Counts:
    """How one class was found; pixels, or objects where there are no true negatives."""

    true_positives: int
    """Found and true."""
    false_positives: int
    """Found only."""
    false_negatives: int
    """True only."""
    true_negatives: int = 0
    """Neither."""

    def __add__(self, other: "Counts") -> "Counts":
        """Return the counts of two images together."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counts(*(one + two for one, two in pairs))

    @property
    def dice(self) -> float:
        """``2 TP / (2 TP + FP + FN)``; 1 where there is nothing to find and nothing was found."""
        return self.f(1)

    @property
    def iou(self) -> float:
        """``TP / (TP + FP + FN)``; 1 where there is nothing to find and nothing was found."""
        wrong = self.false_positives + self.false_negatives
        return _share(self.true_positives, self.true_positives + wrong, 1.0)

    def f(self, beta: float) -> float:
        """``(1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP)``: sensitivity counts b times as much.

        >>> Counts(6, 2, 4).f(1), Counts(6, 2, 4).f(2)
        (0.6666666666666666, 0.625)
        """
        found = (1 + beta**2) * self.true_positives
        wrong = beta**2 * self.false_negatives + self.false_positives
        return _share(found, found + wrong, 1.0)

    @property
    def precision(self) -> float:
        """``TP / (TP + FP)``; NaN where nothing was found."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def sensitivity(self) -> float:
        """``TP / (TP + FN)``; NaN where there is nothing to find."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """``TN / (TN + FP)``; NaN where everything is to be found."""
        return _share(self.true_negatives, self.true_negatives + self.false_positives)


def counts_of(confusion: NDArray[np.int64], label: int) -> Counts:
    """Return the counts of one class from a table of pixels ``(found, true)``."""
    both = int(confusion[label, label])
    found, true = int(confusion[label].sum()), int(confusion[:, label].sum())
    return Counts(both, found - both, true - both, int(confusion.sum()) - found - true + both)


def pixel_error(confusion: NDArray[np.int64]) -> float:
    """Return the share of pixels with a wrong class; NaN where there are none."""
    wrong = int(confusion.sum()) - int(np.trace(confusion))
    return _share(wrong, int(confusion.sum()))


def confusion_of(
    found: NDArray[np.integer], true: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """Return the table of pixels ``(found, true)`` of two label arrays.

    >>> confusion_of(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
    [[1, 0], [1, 1]]
    """
    index = found.astype(np.int64).ravel() * classes + true.astype(np.int64).ravel()
    return np.bincount(index, minlength=classes**2).reshape(classes, classes)


def _share(part: float, whole: float, otherwise: float = float("nan")) -> float:
    return part / whole if whole else otherwise
