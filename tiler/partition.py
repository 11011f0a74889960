"""Other tiles for the same mask: another core, and so other origins, at the same phase."""

from dataclasses import replace

from .axis import AxisGrid
from .geometry import AxisGeometry

OTHER_CORE_PX = 256
"""Largest core of tiles that are made smaller for it: one of them is little work."""


def other_axis(
    axis: AxisGrid, geometry: AxisGeometry, length: int, *, exact: bool
) -> AxisGrid | None:
    """Return an axis whose tiles have another core, a block each; ``None`` where there is none.

    Args:
        axis: The tiles as they are. Of exact ones only the core counts, to choose another: all else
            is worked out anew. Others keep their size and place in it, and overlap more.
        geometry: The network's geometry along the axis.
        length: Pixels of the mask along the axis, of which a core is half at most.
        exact: Whether the mask is that of one whole pass.
    """
    scale, free = axis.scale, exact and not geometry.fixed
    limit = min(axis.core * 3 // 4, -(-length // 2), OTHER_CORE_PX if free else axis.core)
    grain = geometry.period_out if exact or axis.core % geometry.period_out == 0 else scale.up
    core = max(grain, limit // grain * grain)
    if core >= axis.core:
        if not free:
            return None
        core = axis.core + grain
    tile, lead, window = axis.tile, axis.lead, axis.window if axis.blended else core
    if exact:
        tile = geometry.size if geometry.fixed else geometry.tile_of_core(core)
        lead = geometry.lead(geometry.halo_aligned)
    return replace(axis, tile=tile, lead=lead, window=window, core=core, chunk=core, block=core)
