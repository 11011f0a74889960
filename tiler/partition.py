"""Other tiles for the same mask: another core, and so other origins, at the same phase."""

from dataclasses import replace
from math import lcm

from .axis import AxisGrid
from .geometry import AxisGeometry

OTHER_CORE_PX = 256
"""Largest core of tiles that are made smaller for it: one of them is little work."""


def other_axis(
    axis: AxisGrid, geometry: AxisGeometry, length: int, *, exact: bool
) -> AxisGrid | None:
    """Return an axis whose tiles have another core, a block each; ``None`` where there is none.

    Halo and phase stay as they are. Exact tiles of a network that takes several sizes become
    smaller with their core; others keep their size and overlap more.

    Args:
        axis: The tiles as they are.
        geometry: The network's geometry along the axis.
        length: Pixels of the mask along the axis, of which a core is half at most.
        exact: Whether the mask is that of one whole pass: its cores are whole periods.
    """
    scale, resized = axis.scale, exact and not geometry.fixed
    limit = min(axis.core * 3 // 4, -(-length // 2))
    if resized:
        grain = scale.mask_px(lcm(geometry.period, geometry.step))
        most = min((axis.tile - geometry.size) // scale.image_px(grain), (axis.core - 1) // grain)
        wanted = -(-(axis.core - min(limit, OTHER_CORE_PX)) // grain)
        # With no room for a smaller tile, one that is larger by a step is as good.
        less = (min(most, wanted) or -1) * grain
        core, tile = axis.core - less, axis.tile - scale.image_px(less)
    else:
        grain = geometry.period_out if exact or axis.core % geometry.period_out == 0 else scale.up
        core, tile = max(grain, limit // grain * grain), axis.tile
        if core >= axis.core:
            return None
    window = axis.window if axis.blended else core
    return replace(axis, tile=tile, window=window, core=core, chunk=core, block=core)
