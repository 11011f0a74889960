"""The weight of each pixel in the loss: rare classes, and the gaps between objects, count more."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import SettingError

_REACH_SIGMAS = 6.5
"""Where ``exp(-d^2 / (2 sigma^2))`` is below the last bit of a weight in float32."""


@dataclass(frozen=True, slots=True)
class WeightMap:
    """``w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2))``, Ronneberger et al. 2015.

    ``d1`` and ``d2`` are the distances in pixels to the nearest and the second nearest object, 0
    inside; ``w_c`` balances the classes.
    """

    w0: float = 10.0
    """Weight in the narrowest gap; 0 for none."""
    sigma_px: float = 5.0
    """Width of the gaps that count."""
    balance: float = 1.0
    """Power of the inverse class frequencies: 0 for none, 1 for an equal say of all classes."""
    inside: bool = True
    """Whether an object's own pixels that are near another object count more as well."""

    def __post_init__(self) -> None:
        if not (0 <= self.w0 < inf and 0 < self.sigma_px < inf and 0 <= self.balance <= 1):
            raise SettingError(
                "a weight map needs w0 >= 0, sigma_px > 0 and 0 <= balance <= 1; "
                f"got {self.w0}, {self.sigma_px}, {self.balance}"
            )

    def of(
        self,
        classes: NDArray[np.uint8],
        objects: NDArray[np.int32],
        class_weights: Sequence[float],
    ) -> NDArray[np.float32]:
        """Return the weights ``(y, x)``.

        Args:
            classes: Class of each pixel, ``(y, x)``.
            objects: Number of the object at each pixel, ``(y, x)``.
            class_weights: ``w_c`` of each class, of the whole training set.
        """
        weights = np.asarray(class_weights, np.float32)[classes]
        if self.w0 > 0:
            gaps = self.w0 * separation(objects, self.sigma_px)
            weights += gaps if self.inside else np.where(objects == 0, gaps, np.float32(0))
        return weights

    def class_weights(self, counts: Sequence[int]) -> tuple[float, ...]:
        """Return ``w_c`` of each class such that the mean over all pixels is 1.

        Args:
            counts: Pixels of each class in the whole training set, all above 0.

        >>> WeightMap().class_weights([75, 25])
        (0.6666666666666666, 2.0)
        """
        share = np.asarray(counts, np.float64) / sum(counts)
        weights = share**-self.balance
        return tuple(float(weight) for weight in weights / (weights * share).sum())


def separation(objects: NDArray[np.int32], sigma_px: float) -> NDArray[np.float32]:
    """Return ``exp(-(d1 + d2)^2 / (2 sigma^2))`` at each pixel, 0 with fewer than two objects.

    Each object is measured within its own reach only, so time grows with the objects' areas and
    memory does not grow with their number.

    Args:
        objects: Number of the object at each pixel, ``(y, x)``; 0 where there is none.
        sigma_px: Width of the gaps.
    """
    from scipy import ndimage

    nearest = np.full(objects.shape, np.inf, np.float32)
    second = nearest.copy()
    reach = ceil(_REACH_SIGMAS * sigma_px)
    for number, place in enumerate(ndimage.find_objects(objects), 1):
        if place is None:
            continue
        window = tuple(
            slice(max(0, side.start - reach), min(length, side.stop + reach))
            for side, length in zip(place, objects.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(objects[window] != number).astype(np.float32)
        first, other = nearest[window], second[window]
        np.minimum(other, np.maximum(first, distance), out=other)
        np.minimum(first, distance, out=first)
    total = nearest + second
    return np.asarray(np.exp(-(total**2) / np.float32(2 * sigma_px**2)), np.float32)
