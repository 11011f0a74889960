"""Measure a network's geometry by running it on noise, and say whether it can be tiled exactly."""

import math
from dataclasses import dataclass
from typing import Literal

from ..tiler.geometry import AxisGeometry, Geometry
from .probe_bench import Bench, LogitsFunction, Shape
from .probe_halo import Halo, judge_influence, measure_halo
from .probe_margin import measure_margin
from .probe_period import COMMON_SHIFTS, ROUNDING, Shifts
from .probe_scale import measure_scale
from .probe_sizes import Fixed, Sizes, settle_period, trial_sizes

__all__ = ["LogitsFunction", "Probe", "Verdict", "probe"]

Verdict = Literal["bounded", "does_not_fit", "unbounded", "position_dependent"]
"""``bounded``: can be tiled exactly. ``does_not_fit``: the halo leaves no core in the tile.
``unbounded``: every pixel depends on the whole tile (normalisation, pooling of the tile).
``position_dependent``: bounded, but equal to no shifted copy of itself (``align_corners``)."""

_LARGE_ENOUGH_PX = 512  # networks that agreed with no shift at 256 px turned out bounded here
_ASSUMED_PERIOD = 32


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured of a network."""

    geometry: Geometry
    """Sizes, margin, halo and period; halo 0 where not bounded."""
    verdict: Verdict
    """Whether the network can be tiled exactly, and if not, why."""
    classes: int
    """Output channels."""
    disagreement: float
    """Largest |difference| of the logits of two crops, deep inside, over the largest |logit|; 1
    at most, also where the tile is too small to compare any two."""
    tolerance: float | None
    """Stated tolerance that the halo was measured with; ``None`` for exact."""
    lowest: float
    """Smallest logit on noise."""
    highest: float
    """Largest logit on noise."""
    whole_numbers: bool
    """Whether the logits are whole numbers only, as of labels."""
    runs: int
    """Network runs it took."""

    @property
    def bounded(self) -> bool:
        """Whether tiling gives what one pass over the whole image gives."""
        return self.verdict == "bounded"


def probe(
    logits: LogitsFunction,
    channels: int,
    fixed: Fixed,
    *,
    tolerance: float | None = None,
    tile: Shape | None = None,
    largest: float = 1.0,
    seed: int = 0,
) -> Probe:
    """Measure tile sizes, margin, period and halo of a network.

    Args:
        logits: The network up to its logits: a final activation saturates and hides the halo.
        channels: Input channels.
        fixed: Height and width where the file fixes them, ``None`` where free.
        tolerance: Accept a halo beyond which logits differ by up to this part of the largest.
        tile: A size to try where a network with free axes refuses all the usual ones.
        largest: Largest number in the images to come: noise of that size is tried as well.
        seed: Of the noise.

    Raises:
        ModelError: The network does not map a tile to a map, refuses every size, or is constant on
            noise.
    """
    bench = Bench(logits, channels, seed, largest)
    first: Shape | None = None
    verdict: Verdict = "does_not_fit"
    period: Shape = (1, 1)
    disagreement = math.inf
    for size in trial_sizes(bench, fixed, tile):
        bench.inspect(size)
        if first is None:
            bench.check_repeats(size, ROUNDING)
            first, bench.scale = (
                size,
                measure_scale(bench, size, (fixed[0] is None, fixed[1] is None)),
            )
        shifts = Shifts(bench, size, tolerance)
        only = None not in fixed or size == tile
        shift, verdict = _find_shift(bench, size, shifts, only=only)
        disagreement = min(disagreement, shifts.least)
        if shift is not None:
            period = settle_period(bench, size, fixed, shifts.reduce(shift))
            sizes = Sizes(bench, fixed, math.lcm(*period))
            canonical = sizes.canonical(size)
            halo = measure_halo(bench, canonical, period, tolerance)
            if halo is not None:
                step = sizes.step(canonical, halo, tolerance)
                before = measure_margin(bench, canonical, period)
                smallest = sizes.smallest(canonical, step, halo, tolerance)
                return _result(
                    bench, smallest, fixed, step, period, halo, "bounded", tolerance, before
                )
            verdict = judge_influence(bench, canonical)
            if verdict == "position_dependent":  # it is not: crops agreed, only too little is left
                verdict = "does_not_fit"
        if verdict != "does_not_fit" and max(size) >= _LARGE_ENOUGH_PX:
            break
    assert first is not None  # trial_sizes raises where there is none
    assumed = math.lcm(_ASSUMED_PERIOD, bench.scale.down)
    sizes = Sizes(bench, fixed, assumed)
    canonical = sizes.canonical(first)
    grown = sizes.lost(sizes.grow(canonical, assumed))
    step = assumed if grown == sizes.lost(canonical) else 0
    period = math.lcm(period[0], bench.scale.down), math.lcm(period[1], bench.scale.down)
    halo = Halo((0, 0), (0, 0), min(disagreement, 1.0))
    return _result(bench, canonical, fixed, step, period, halo, verdict, tolerance)


def _find_shift(
    bench: Bench, size: Shape, shifts: Shifts, *, only: bool
) -> tuple[int | None, Verdict]:
    """Return a shift under which crops agree, or else why there is none.

    Rare periods are tried where a larger tile would not help, or where this is the ``only`` size.
    """
    shift = shifts.find(COMMON_SHIFTS)
    if shift is not None:
        return shift, "does_not_fit"  # unless a halo is found
    verdict: Verdict = judge_influence(bench, size)
    settled = verdict == "position_dependent" and max(size) >= _LARGE_ENOUGH_PX
    if settled or (only and verdict != "unbounded"):
        shift = shifts.find(shifts.rest())
        if shift is not None:
            return shift, "does_not_fit"
    return None, verdict


def _result(
    bench: Bench,
    size: Shape,
    fixed: Fixed,
    step: int,
    period: Shape,
    halo: Halo,
    verdict: Verdict,
    tolerance: float | None,
    before: Shape | None = None,
) -> Probe:
    output = bench.run(size)
    axes = []
    for axis in (0, 1):
        lost = bench.lost(size, output)[axis]
        margin = lost // 2 if before is None else before[axis]
        axes.append(
            AxisGeometry(
                size=size[axis],
                step=step if fixed[axis] is None else 0,
                period=period[axis],
                margin_before=margin,
                margin_after=lost - margin,
                halo_before=halo.before[axis],
                halo_after=halo.after[axis],
                scale=bench.scale,
            )
        )
    return Probe(
        geometry=Geometry(*axes),
        verdict=verdict,
        classes=output.shape[0],
        disagreement=halo.disagreement,
        tolerance=tolerance,
        lowest=bench.lowest,
        highest=bench.highest,
        whole_numbers=bench.whole_numbers,
        runs=bench.runs,
    )
