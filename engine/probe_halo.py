"""The halo of a network: how deep the border of a tile, or a change there, is felt."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .probe_bench import Bench, Shape, centre
from .probe_period import ROUNDING

_NOISE = 1e-6  # over the largest logit: above rounding, a tenth of what the engine promises
# How a change at one end is felt elsewhere, from trying: pooling of the whole tile left 0.017 or
# more at the centre (a far-sighted network 0.06 too), and at the far end 0.5 or more of that
# (a far-sighted one 0.09 or less).
_PLATEAU = 0.01
_FLAT = 0.25


@dataclass(frozen=True, slots=True)
class Halo:
    """Spoiled output pixels at the four sides."""

    before: Shape
    """At the top and at the left."""
    after: Shape
    """At the bottom and at the right."""
    disagreement: float = 0.0
    """Largest |difference| of two crops between the halos, over the largest logit."""

    def leaves_core(self, out: Shape, period: Shape) -> bool:
        """Say whether an output of this size keeps a period of its pixels along both axes."""
        return all(
            n - -(-before // p) * p - after >= p
            for n, before, after, p in zip(out, self.before, self.after, period, strict=True)
        )

    def join(self, other: "Halo") -> "Halo":
        """Return the larger of both at each side."""
        return Halo(
            (max(self.before[0], other.before[0]), max(self.before[1], other.before[1])),
            (max(self.after[0], other.after[0]), max(self.after[1], other.after[1])),
            max(self.disagreement, other.disagreement),
        )


def measure_halo(bench: Bench, size: Shape, period: Shape, tolerance: float | None) -> Halo | None:
    """Return the halo, ``None`` if it leaves no core in a tile of this size.

    Two measurements, of which the larger counts:

    - a change of the first ``strip`` pixels is not felt beyond ``strip`` + halo, for a crop that
      starts there does not see them. Both tiles lie at one place, so this is exact to the bit. It
      also unmasks a tile so small that every pixel sees zero padding on all sides;
    - two crops, shifted by a multiple of the period, agree beyond the halo, at every amplitude of
      the noise; to rounding, since another place may take another code path.

    Where a halo exact to the bit leaves no core, one to a millionth of the largest logit is tried.
    """
    strip = math.lcm(*period)
    strip *= -(-8 // strip)
    period_out = bench.scale.mask_px(period[0]), bench.scale.mask_px(period[1])
    largest = float(np.abs(bench.run(size)).max())
    out = bench.out(size)
    for threshold in (0.0, _NOISE) if tolerance is None else (tolerance,):
        halo = _reach(bench, size, strip, threshold * largest)
        for amplitude in bench.amplitudes:
            if halo.leaves_core(out, period_out):
                shifted = _spoiled(bench, size, strip, max(threshold, _NOISE), amplitude)
                halo = halo.join(shifted)
        if halo.leaves_core(out, period_out):
            return halo
    return None


def _spoiled(bench: Bench, size: Shape, shift: int, threshold: float, amplitude: float) -> Halo:
    """Return how deep two shifted crops disagree."""
    reference = bench.run(size, amplitude=amplitude)
    other = bench.run(size, (shift, shift), amplitude=amplitude)
    largest = float(np.abs(reference).max())
    error = bench.difference(reference, other, (shift, shift)) / largest
    deep = float(error[centre(error.shape[0]), centre(error.shape[1])].max())
    if deep > threshold:  # the interior's own noise, up to what still counts as rounding
        threshold = max(threshold, min(4 * deep, ROUNDING))
    y, x = _clear_rectangle(~(error <= threshold))  # NaN is bad
    return Halo(
        (y.start, x.start),
        (error.shape[0] - y.stop, error.shape[1] - x.stop),
        float(error[y, x].max(initial=0.0)),
    )


def _clear_rectangle(bad: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return rows and columns around the centre between which nothing is bad."""
    y = _clear_run(np.any(bad[:, centre(bad.shape[1])], axis=1))
    x = _clear_run(np.any(bad[centre(bad.shape[0])], axis=0))
    # Judged on the centre alone these may still hold a bad pixel: cut it off at its nearest side.
    rows, columns = np.nonzero(bad[y, x])
    height, width = y.stop - y.start, x.stop - x.start
    depth = np.stack([rows, height - 1 - rows, columns, width - 1 - columns])
    nearest = depth.argmin(axis=0)
    top, bottom, left, right = (
        int(depth[side, nearest == side].max(initial=-1)) + 1 for side in range(4)
    )
    return slice(y.start + top, y.stop - bottom), slice(x.start + left, x.stop - right)


def _clear_run(bad: NDArray[np.bool_]) -> slice:
    middle = len(bad) // 2
    before, after = np.flatnonzero(bad[:middle]), np.flatnonzero(bad[middle:])
    start = int(before[-1]) + 1 if before.size else 0
    stop = middle + int(after[0]) if after.size else len(bad)
    return slice(start, stop)


def _reach(bench: Bench, size: Shape, strip: int, limit: float) -> Halo:
    """Return how far beyond themselves changed rows and columns are felt, from both ends."""
    changed = bench.scale.mask_px(strip)
    before, after = (
        (max(0, reach(y, limit) - changed), max(0, reach(x, limit) - changed))
        for y, x in influence(bench, size, strip)
    )
    return Halo(before, after)


Profiles = tuple[NDArray[np.float32], NDArray[np.float32]]


def influence(bench: Bench, size: Shape, strip: int) -> tuple[Profiles, Profiles]:
    """Return what a change of the first, and of the last, ``strip`` rows and columns does.

    Each is a pair for y and x: the largest |difference| of the logits in each output row, and in
    each column, counted from the changed end.
    """
    first = bench.difference(bench.run(size), bench.run(size, change=slice(0, strip)), (0, 0))
    last = bench.difference(bench.run(size), bench.run(size, change=slice(-strip, None)), (0, 0))
    return _profiles(first), _profiles(last[::-1, ::-1])


def _profiles(change: NDArray[np.float32]) -> Profiles:
    # Rows are judged on the far half of the columns, where changed columns are felt least.
    y, x = change.shape[0] // 2, change.shape[1] // 2
    return change[:, x:].max(axis=1), change[y:].max(axis=0)


def reach(profile: NDArray[np.float32], limit: float) -> int:
    """Return the number of output pixels within which a change is felt."""
    felt = np.flatnonzero(~(profile <= limit))  # NaN is felt
    return int(felt[-1]) + 1 if felt.size else 0


def judge_influence(
    bench: Bench, size: Shape
) -> Literal["position_dependent", "does_not_fit", "unbounded"]:
    """Say why no two shifted crops agree, from how far a change is felt.

    Felt nowhere deep inside: the context is bounded, so it is the place that matters. Fading with
    distance: the context is larger than the tile. Felt alike everywhere: the whole tile is pooled.
    """
    strip = max(8, min(size) // 8)
    strip_out = bench.scale.mask_px(strip)
    reference = bench.run(size)
    limit = _NOISE * float(np.abs(reference).max())
    out = bench.out(size)
    if _reach(bench, size, strip, limit).leaves_core(out, (strip_out, strip_out)):
        return "position_dependent"
    middle = slice((size[0] - strip) // 2, (size[0] + strip) // 2)
    near, top, bottom = (
        bench.difference(reference, bench.run(size, change=rows, both_axes=False), (0, 0)).mean(
            axis=1
        )
        for rows in (middle, slice(0, strip), slice(-strip, None))
    )
    deep, far = centre(out[0]), max(1, out[0] // 8)
    levels_off = any(
        end[deep].mean() > _PLATEAU * near[deep].mean()
        and end[-far:].mean() > _FLAT * end[deep].mean()
        for end in (top, bottom[::-1])
    )
    return "unbounded" if levels_off else "does_not_fit"
