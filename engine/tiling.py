"""Where the tiles of an image lie: exactly, or overlapping where that cannot be."""

from dataclasses import dataclass, replace

from ..tiler.axis import AxisGrid, exact_grid, overlapping_grid
from ..tiler.geometry import AxisGeometry, Geometry
from ..tiler.grid import Grid
from .augmentation import turned_geometry
from .probe import Probe
from .settings import Settings

CORES_PX = {
    "cpu": (256, 384, 512, 768, 1024, 1536, 2048),
    "cuda": (256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072, 3584, 4096),
}
"""Largest cores of a network that takes several sizes, one layout each: larger tiles repeat less
work, but need more memory, and on a CPU they leave the cache."""

LARGE_PX = 1 << 17
"""Side of an image whose tiles are as the cores above say: a smaller one's are cut to measure."""

BLENDED_PX = 512
"""Output of a blended tile of a network that takes several sizes: of larger ones too many reach
into two blocks, and are run for both."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles of an image, and what they were chosen by."""

    grid: Grid
    """Where they lie."""
    geometry: Geometry
    """What is cropped of them."""
    fits: bool
    """Whether the network can be tiled exactly, in the tiles it takes."""
    blend: str | None
    """Window of overlapping tiles, asked for or needed; ``None`` for none."""
    notes: tuple[str, ...]
    """What was assumed."""
    warnings: tuple[str, ...]
    """What the user should know."""


def choose_tilings(
    shape: tuple[int, int], probe: Probe, settings: Settings, kind: str
) -> tuple[Tiling, ...]:
    """Choose the tiles of an image; several sizes where any is as exact, the smallest first.

    Args:
        shape: Height and width of the image in pixels.
        probe: What was measured of the network.
        settings: Their ``halo``, ``tolerance``, ``tile``, ``blend``, ``overlap`` and ``tta`` count.
        kind: ``cpu`` or ``cuda``.

    Raises:
        SettingError: What is asked for does not fit the network.
    """
    geometry, notes, warnings = _crop_rules(probe, settings)
    if not probe.bounded and settings.tile:
        geometry = _with_smaller_tiles(geometry, settings.tile)
    fits = probe.bounded and _leaves_core(geometry)
    blend = settings.blend
    if blend is None and settings.halo is None and not fits:
        blend = "hann"
    geometry = turned_geometry(geometry, settings.tta)
    cores = CORES_PX[kind] if blend is None and settings.tile is None else CORES_PX[kind][:1]
    grids = {
        grid.tile: grid for grid in (_grid(shape, geometry, settings, blend, px) for px in cores)
    }
    return tuple(
        Tiling(grid, geometry, fits, blend, tuple(notes), tuple(warnings))
        for grid in grids.values()
    )


def _crop_rules(probe: Probe, settings: Settings) -> tuple[Geometry, list[str], list[str]]:
    """Return the geometry that the settings leave of the measured one, notes and warnings."""
    if settings.halo is not None:
        geometry = Geometry(
            *(
                replace(axis, halo_before=settings.halo, halo_after=settings.halo)
                for axis in (probe.geometry.y, probe.geometry.x)
            )
        )
        warning = (
            f"halo={settings.halo} px as asked, measured were "
            f"{probe.geometry.y.halo_before} + {probe.geometry.y.halo_after} px (y) and "
            f"{probe.geometry.x.halo_before} + {probe.geometry.x.halo_after} px (x): the mask is "
            "not certified to be that of one whole pass"
        )
        return geometry, [], [warning]
    if settings.tolerance is not None:
        note = f"logits may be off by {settings.tolerance:g} of the largest: the mask is not exact"
        return probe.geometry, [note], []
    return probe.geometry, [], []


def _with_smaller_tiles(geometry: Geometry, tile: tuple[int, int]) -> Geometry:
    """Let a network that cannot be tiled exactly take tiles below the smallest that was tried."""
    axes = [
        replace(axis, size=size)
        if size < axis.size and not axis.fixed and axis.output(size) > 0
        else axis
        for axis, size in zip((geometry.y, geometry.x), tile, strict=True)
    ]
    return Geometry(*axes)


def _leaves_core(geometry: Geometry) -> bool:
    """Say whether the halo leaves something of a fixed tile; a free one can be made larger."""
    axes = (geometry.y, geometry.x)
    return all(not axis.fixed or axis.core_of(axis.size) > 0 for axis in axes)


def _grid(
    shape: tuple[int, int],
    geometry: Geometry,
    settings: Settings,
    blend: str | None,
    core_limit: int,
) -> Grid:
    def of(tile: tuple[int | None, int | None]) -> Grid:
        y, x = (
            _axis(length, axis, side, settings, blend, core_limit)
            for length, axis, side in zip(shape, (geometry.y, geometry.x), tile, strict=True)
        )
        return Grid(y, x)

    grid = of(settings.tile or (None, None))
    # A tile that is transposed has to be square, and so has what is kept of it.
    return of((max(grid.tile),) * 2) if settings.tta == "dihedral" else grid


def _axis(
    length: int,
    geometry: AxisGeometry,
    tile: int | None,
    settings: Settings,
    blend: str | None,
    core_limit: int,
) -> AxisGrid:
    if blend is None:
        return exact_grid(length, geometry, core_limit=core_limit, tile=tile)
    return overlapping_grid(
        length,
        geometry,
        overlap=0.5 if settings.overlap is None else settings.overlap,
        size_limit=BLENDED_PX,
        blended=blend != "none",
        tile=tile,
    )
