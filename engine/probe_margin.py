"""The margin of a network: how many of the pixels it loses lie before its output."""

import numpy as np

from ..tiler.scale import SAME
from .probe_bench import Bench, Shape
from .probe_halo import Profiles, influence, reach
from .probe_period import ROUNDING

_STRIP_PX = 8


def measure_margin(bench: Bench, size: Shape, period: Shape) -> Shape:
    """Return the fine pixels lost before the first output pixel, along y and x.

    Half of them, unless the output is plainly off the middle (looked for at scale 1 only).
    """
    lost = bench.lost(size, bench.run(size))
    before = int(lost[0] / 2), int(lost[1] / 2)  # an output may also reach beyond the tile
    if bench.scale != SAME:
        return before
    visible = ROUNDING * float(np.abs(bench.run(size)).max())
    strip = _STRIP_PX
    while any(lost) and strip <= min(size) // 2:
        ends = influence(bench, size, strip)
        if all(reach(profile, 0.0) for profiles in ends for profile in profiles):
            y, x = (
                (lost[axis] + _skew(ends, axis, strip, lost[axis], period[axis], visible)) // 2
                for axis in (0, 1)
            )
            return min(max(0, y), lost[0]), min(max(0, x), lost[1])
        strip *= 2  # what was changed is cropped away
    return before


def _skew(
    ends: tuple[Profiles, Profiles], axis: int, strip: int, lost: int, period: int, visible: float
) -> int:
    """Return by how many pixels the margin before is larger than the one after.

    ::

        changed      |<-strip->|                    |<-strip->|
        tile         |<------------------ size -------------->|
        output          |<---------------------------->|
        change felt     |<---->|                    |<>|
                         first                      last

    Output pixels feel a change within their context. Where the output is centred as many feel it
    at either end; strides explain a difference of a period. A weak or dead rim of the context
    explains more, so a difference counts only if the context ends sharply and is so short that a
    centred output pixel would not see its own place.
    """
    profiles = [profiles[axis] for profiles in ends]
    first, last = (reach(profile, 0.0) for profile in profiles)
    sharp = [reach(profile, visible) for profile in profiles] == [first, last]
    context = first + last - 2 * strip + lost
    skew = last - first
    return skew if sharp and abs(skew) > max(period, context) and context >= 0 else 0
