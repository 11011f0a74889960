"""The tile sizes a network takes, and those among them that mean the same."""

import math
from collections.abc import Iterator

import numpy as np

from ..tiler.errors import ModelError, first_line
from .probe_bench import Bench, Logits, Shape
from .probe_halo import Halo
from .probe_period import ROUNDING

Fixed = tuple[int | None, int | None]
"""Height and width where the file fixes them, ``None`` where free."""

_FIRST_PX = (256, 288, 252, 320, 240, 224, 128, *range(257, 321), 64)
_LARGER_PX = (512, 576, 1024)
_LONGEST_PX = 64


def trial_sizes(bench: Bench, fixed: Fixed, tile: Shape | None) -> Iterator[Shape]:
    """Yield sizes that the network takes: one if fixed, else ever larger ones, or only ``tile``.

    Raises:
        ModelError: The network takes none.
    """
    if None not in fixed:
        if bench.try_run(_shape(fixed, 1)) is None:
            raise ModelError(f"the network cannot be run: {_refusal(bench)}") from bench.refusal
        yield _shape(fixed, 1)
        return
    first = next((n for n in _FIRST_PX if bench.try_run(_shape(fixed, n)) is not None), None)
    if first is not None:
        yield _shape(fixed, first)
    ran = first is not None
    for n in _LARGER_PX:
        if bench.try_run(_shape(fixed, n)) is not None:
            ran = True
            yield _shape(fixed, n)
    if not ran and tile is not None:
        tile = fixed[0] or tile[0], fixed[1] or tile[1]
        if bench.try_run(tile) is not None:
            ran = True
            yield tile
    if not ran:
        raise ModelError(
            f"the network took no tile of {min(_FIRST_PX)} to {max(_LARGER_PX)} px "
            f"({_refusal(bench)}); mend it, export it with a fixed size or state its tile size"
        ) from bench.refusal


def _refusal(bench: Bench) -> str:
    """Return what the network said when it refused a size."""
    return first_line(bench.refusal) if bench.refusal else "it said nothing"


def _shape(fixed: Fixed, free_px: int) -> Shape:
    return fixed[0] or free_px, fixed[1] or free_px


def settle_period(bench: Bench, size: Shape, fixed: Fixed, period: Shape) -> Shape:
    """Return the period, made a multiple of what the sizes that the network takes show.

    What the deepest layers say may drown in the rest, but the sizes that they allow do not: one
    period more has to lose as much as before.
    """
    free = [n is None for n in fixed]
    lost = bench.lost(size, bench.run(size))
    common = math.lcm(*period)
    for growth in (period, *((by, by) for by in range(common, _LONGEST_PX + 1, common))):
        grown = size[0] + growth[0] * free[0], size[1] + growth[1] * free[1]
        output = bench.try_run(grown) if any(free) else None
        if output is not None and bench.lost(grown, output) == lost:
            y, x = (
                math.lcm(p, by) if f else p for p, by, f in zip(period, growth, free, strict=True)
            )
            return y, x
    return period


class Sizes:
    """Grows and shrinks a tile along its free axes; both grow alike, which is always allowed."""

    def __init__(self, bench: Bench, fixed: Fixed, period_px: int) -> None:
        self._bench = bench
        self._free = (fixed[0] is None, fixed[1] is None)
        self._period = period_px
        self._stairs = False

    def grow(self, size: Shape, by: int) -> Shape:
        """Return a size with ``by`` pixels more along the free axes."""
        return size[0] + by * self._free[0], size[1] + by * self._free[1]

    def lost(self, size: Shape) -> Shape | None:
        """Return the fine pixels that have no output, ``None`` where the size is refused."""
        output = self._bench.try_run(size)
        return None if output is None else self._bench.lost(size, output)

    def canonical(self, size: Shape) -> Shape:
        """Return the size, of one period from ``size`` on, that loses least.

        That a network ran is no proof: one that crops to fit takes every size and mixes phases in
        all but the class that loses least. Among equals a multiple of the period is preferred.
        """
        lost = self.lost(size)
        multiple = all(n % self._period == 0 for n, f in zip(size, self._free, strict=True) if f)
        if not any(self._free) or (lost == (0, 0) and multiple):
            return size
        stair = self._stair(size)
        if stair is not None:
            self._stairs = True
            return self.grow(size, stair)
        ranked = []
        for k in range(self._period):
            grown = self.grow(size, k)
            lost = self.lost(grown)
            if lost is not None:
                ranked.append((sum(lost), sum(n % self._period for n in grown), k))
        return self.grow(size, min(ranked)[2])

    def _stair(self, size: Shape) -> int | None:
        """Return where the output jumps by a whole period, ``None`` if it does not do so at once.

        Outputs never shrink as tiles grow, so bisection finds the one jump.
        """
        low, high = 0, self._period
        up = self._bench.scale.up
        lost = self.lost(self.grow(size, high))
        if lost is None or lost != self.lost(size):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            here = self.lost(self.grow(size, middle))
            if here is None:
                return None
            if here == self.grow(lost, middle * up):
                low = middle
            elif here == self.grow(lost, (middle - self._period) * up):
                high = middle
            else:
                return None
        return high % self._period

    def step(self, size: Shape, halo: Halo, tolerance: float | None) -> int:
        """Return the smallest growth that keeps the class of ``size``; 0 if it cannot grow.

        Raises:
            ModelError: The output grows by another amount than the tile.
        """
        if not any(self._free):
            return 0
        base = self._bench.run(size)
        longest = max(8 * self._period, _LONGEST_PX)  # it may demand multiples of several periods
        for by in range(self._period, longest + 1, self._period):
            reference = self._bench.try_run(self.grow(size, by))
            if reference is not None:
                break
        else:
            return 0
        axis = 0 if self._free[0] else 1
        growth = reference.shape[1 + axis] - base.shape[1 + axis]
        if growth * self._bench.scale.down != by * self._bench.scale.up:
            raise ModelError(
                f"the output must grow with the tile, at scale {self._bench.scale}; got {growth} "
                f"px more for {by} px more; resize the output inside the network"
            )
        if not _same(base, reference, halo, tolerance):
            return 0
        if self._stairs or by > self._period:  # those between lose more, or are refused
            return by
        lost = self._bench.lost(size, base)

        def keeps_class(by: int) -> bool:
            output = self._bench.try_run(self.grow(size, by))
            return (
                output is not None
                and self._bench.lost(self.grow(size, by), output) == lost
                and _same(output, reference, halo, tolerance)
            )

        for step in range(self._bench.scale.down, self._period, self._bench.scale.down):
            if self._period % step == 0 and all(
                keeps_class(by) for by in range(step, self._period, step)
            ):
                return step
        return self._period

    def smallest(self, size: Shape, step: int, halo: Halo, tolerance: float | None) -> Shape:
        """Return the smallest size, a number of steps below ``size``, that means the same."""
        if step == 0:
            return size
        reference = self._bench.run(size)
        lost = self._bench.lost(size, reference)
        outs = (n for n, f in zip(reference.shape[1:], self._free, strict=True) if f)
        works, fails = 0, (min(outs) - 1) // self._bench.scale.mask_px(step) + 1
        fails = min(fails, (min(size) - 1) // step + 1)
        while fails - works > 1:  # what runs at one size runs at the larger ones of its class
            middle = (works + fails) // 2
            smaller = self.grow(size, -middle * step)
            output = self._bench.try_run(smaller)
            if (
                output is not None
                and self._bench.lost(smaller, output) == lost
                and _same(output, reference, halo, tolerance)
            ):
                works = middle
            else:
                fails = middle
        return self.grow(size, -works * step)


def _same(smaller: Logits, larger: Logits, halo: Halo, tolerance: float | None) -> bool:
    """Say whether two tiles with one origin agree between the halos of the smaller one."""
    y, x = (
        slice(before, max(before, n - after))
        for n, before, after in zip(smaller.shape[1:], halo.before, halo.after, strict=True)
    )
    error = np.abs(smaller[:, y, x] - larger[:, y, x]).max(initial=0.0)
    return bool(error <= max(ROUNDING, tolerance or 0.0) * np.abs(larger).max())
