"""The period of a network: the smallest shift under which two crops say the same."""

import math
from collections.abc import Iterable

import numpy as np

from .probe_bench import Bench, Shape, centre

ROUNDING = 1e-5
"""Largest difference, over the largest logit, that counts as rounding."""
EXACT = 1.2e-7
"""Largest difference, likewise, that one rounding in single precision explains."""
COMMON_SHIFTS = (16, 64, 48, 60, 56, 36, 32, 8, 4)
"""The most usual period, multiples of most others, and small ones for small tiles."""
_MAX_SHIFT = 64
_PARTS = (2, 3, 4, 5, 6, 8)
Disagreement = tuple[float, ...]
"""Largest |difference| over the largest logit in the central half to eighth."""


class Shifts:
    """Compares a crop of one size with shifted ones, at every amplitude."""

    def __init__(self, bench: Bench, size: Shape, tolerance: float | None) -> None:
        self._bench = bench
        self._size = size
        self._tolerance = max(ROUNDING, tolerance or 0.0)
        self._out = bench.out(size)
        self.least = math.inf
        """Least disagreement of the diagonal shifts tried."""
        self._found: Disagreement = (math.inf,) * len(_PARTS)

    def disagreement(self, shift: Shape) -> Disagreement:
        """Return the largest |difference| over the largest logit, in ever deeper parts.

        Args:
            shift: Pixels along y and x, whole ones of the output.
        """
        worst = np.zeros(len(_PARTS))
        for amplitude in self._bench.amplitudes:
            reference = self._bench.run(self._size, amplitude=amplitude)
            other = self._bench.run(self._size, shift, amplitude=amplitude)
            error = self._bench.difference(reference, other, shift)
            height, width = error.shape
            deepest = [error[centre(height, n), centre(width, n)].max() for n in _PARTS]
            worst = np.maximum(worst, np.array(deepest) / np.abs(reference).max())
            if not worst[-1] <= self._tolerance:  # no need to look further
                break
        return tuple(worst.tolist())

    def find(self, shifts: Iterable[int]) -> int | None:
        """Return the one of ``shifts``, along both axes at once, under which crops agree best.

        Best is exactly and in the largest part; the first such is taken. Agreement deep inside
        alone is no proof where a weak layer sees far: larger multiples are tried then.
        """
        tried: dict[int, Disagreement] = {}
        scale = self._bench.scale
        for shift in shifts:
            exact = [s for s, errors in tried.items() if errors[-1] <= EXACT]
            left = min(self._out) - scale.mask_px(shift)
            if (
                shift % scale.down
                or left < max(4, min(self._out) // 4)
                or any(shift % s for s in exact)
            ):
                continue
            tried[shift] = self.disagreement((shift, shift))
            self.least = min(self.least, tried[shift][-1])
            if tried[shift][0] <= EXACT:
                break
        best = min(tried, key=lambda s: _rank(tried[s]), default=None)
        if best is None or not tried[best][-1] <= self._tolerance:
            return None
        self._found = tried[best]
        return best

    def rest(self) -> list[int]:
        """Return the shifts to try after the common ones: large ones first, multiples of most."""
        return [s for s in range(_MAX_SHIFT, 0, -1) if s not in COMMON_SHIFTS]

    def reduce(self, shift: int) -> Shape:
        """Return the smallest period along y and x of which ``shift`` is a multiple.

        Shifts under which a network is equivariant form a group, so testing divisors is enough. A
        period too small is wrong and one too large is not, so a divisor has to agree as well as
        the shift that ``find`` found, whatever tolerance was stated, and in as large a part.
        """
        both = self._divide(shift, (1, 1))
        return self._divide(both, (1, 0)), self._divide(both, (0, 1))

    def _divide(self, shift: int, along: Shape) -> int:
        for prime in _primes(shift):
            while shift % (prime * self._bench.scale.down) == 0 and self._agrees(
                (shift // prime * along[0], shift // prime * along[1])
            ):
                shift //= prime
        return shift

    def _agrees(self, shift: Shape) -> bool:
        limit = max(EXACT, min(4 * self._found[-1], self._tolerance))
        part = next((i for i, error in enumerate(self._found) if error <= limit), -1)
        return self.disagreement(shift)[part] <= limit


def _rank(errors: Disagreement) -> tuple[float, ...]:
    return (*(not error <= EXACT for error in errors), max(errors[-1], EXACT))


def _primes(number: int) -> list[int]:
    return [p for p in range(2, number + 1) if number % p == 0 and all(p % q for q in range(2, p))]
