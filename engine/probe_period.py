"""The period of a network: the smallest shift under which two crops say the same."""

import math
from collections.abc import Iterable

import numpy as np

from .probe_bench import Bench, Shape, centre, difference

ROUNDING = 1e-5
"""Largest difference, over the largest logit, that counts as rounding."""
COMMON_SHIFTS = (16, 64, 48, 60, 56, 36, 32, 8, 4)
"""The most usual period, multiples of most others, and small ones for small tiles."""
_MAX_SHIFT = 64


class Shifts:
    """Compares a crop of one size with shifted ones."""

    def __init__(
        self, bench: Bench, size: Shape, tolerance: float | None, amplitude: float | None = None
    ) -> None:
        self._bench = bench
        self._size = size
        self._tolerance = max(ROUNDING, tolerance or 0.0)
        self._amplitude = amplitude
        self._reference = bench.run(size, amplitude=amplitude)
        self._largest = float(np.abs(self._reference).max())
        self._agreement = ROUNDING
        self.least = math.inf
        """Least disagreement of the diagonal shifts tried."""

    def disagreement(self, shift: Shape, per_px: int = 1) -> float:
        """Return the largest |difference| deep inside, over the largest logit.

        Args:
            shift: Pixels along y and x.
            per_px: Tile pixels per output pixel to be tried.
        """
        other = self._bench.run(self._size, shift, amplitude=self._amplitude)
        error = difference(self._reference, other, (shift[0] // per_px, shift[1] // per_px))
        deep = error[centre(error.shape[0]), centre(error.shape[1])]
        return float(deep.max()) / self._largest

    def agree(self, shift: Shape) -> bool:
        """Say whether two crops agree deep inside as well as those that ``find`` found."""
        return self.disagreement(shift) <= self._agreement

    def find(self, shifts: Iterable[int]) -> int | None:
        """Return the first of ``shifts``, along both axes at once, under which crops agree."""
        out = min(self._reference.shape[1:])
        for shift in shifts:
            if out - shift < max(4, out // 4):
                continue
            error = self.disagreement((shift, shift))
            self.least = min(self.least, error)
            if error <= self._tolerance:
                # A divisor has to agree as well as this, whatever tolerance was stated.
                self._agreement = max(ROUNDING, 4 * error)
                return shift
        return None

    def rest(self) -> list[int]:
        """Return the shifts to try after the common ones: large ones first, multiples of most."""
        return [s for s in range(_MAX_SHIFT, 0, -1) if s not in COMMON_SHIFTS]

    def reduce(self, shift: int) -> Shape:
        """Return the smallest period along y and x of which ``shift`` is a multiple.

        Shifts under which a network is equivariant form a group, so testing divisors is enough.
        """
        both = self._divide(shift, (1, 1))
        return self._divide(both, (1, 0)), self._divide(both, (0, 1))

    def _divide(self, shift: int, along: Shape) -> int:
        for prime in _primes(shift):
            while shift % prime == 0 and self.agree(
                (shift // prime * along[0], shift // prime * along[1])
            ):
                shift //= prime
        return shift

    def pixels_per_output(self) -> int:
        """Return the tile pixels per output pixel, 1 unless the output turns out coarser.

        Called when no shift agrees at scale 1.
        """
        out = self._reference.shape[1]
        for per_px in (2, 4, 8, 16, 32):
            fits = out - _MAX_SHIFT // per_px >= 4
            shift = (_MAX_SHIFT, _MAX_SHIFT)
            if out * per_px == self._size[0] or (
                out * per_px < self._size[0]
                and fits
                and self.disagreement(shift, per_px) <= self._tolerance
            ):
                return per_px
        return 1


def _primes(number: int) -> list[int]:
    return [p for p in range(2, number + 1) if number % p == 0 and all(p % q for q in range(2, p))]
