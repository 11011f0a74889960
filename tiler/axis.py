"""Where the tiles, blocks and chunks of one axis lie."""

from dataclasses import dataclass

from .box import Interval
from .errors import SettingError
from .geometry import AxisGeometry
from .scale import SAME, Scale

CHUNK_PX = 1024
"""Chunks come near this size."""

SMALLEST_CHUNK_PX = 768
"""None is smaller in a larger image: zarr costs about 0.45 ms a chunk, whatever its size."""


@dataclass(frozen=True, slots=True)
class AxisGrid:
    """Tiles every ``core`` pixels along one axis, in blocks of whole chunks.

    ::

        tile i    |<------------------- tile ------------------->|
                  |--- lead ---|<------- window ------->|
        tile i+1       |------ |--- lead ---|<------- window ------->|
                               |<-- core -->|

    Tile ``i`` reads from ``i * stride - lead``: every tile is at the phase of the first. An exact
    grid keeps ``window == core`` pixels of each tile; a blended one keeps more, and adds up what
    overlaps. Tile, lead and stride count pixels of the image, all else pixels of the mask.
    """

    length: int
    """Pixels of the image."""
    tile: int
    """Pixels of a tile."""
    lead: int
    """Pixels of a tile before the window."""
    window: int
    """Pixels of a tile's output that are kept."""
    core: int
    """Distance of neighbouring tiles in the mask."""
    chunk: int
    """Pixels of a chunk."""
    block: int
    """Pixels of a block."""
    scale: Scale = SAME
    """Pixels of the mask per pixel of the image."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise SettingError(f"an image needs at least 1 px along each axis, got {self.length}")
        if self.core * self.scale.down % self.scale.up:
            raise SettingError(
                f"tiles start at whole pixels of the image; got core={self.core} at scale "
                f"{self.scale}"
            )
        room = self.scale.mask_px(self.tile - self.lead)
        if not 1 <= self.core <= self.window <= room or self.lead < 0:
            raise SettingError(
                f"need 1 <= core <= window <= tile - lead, got core={self.core}, "
                f"window={self.window}, tile={self.tile}, lead={self.lead}, scale={self.scale}"
            )
        if self.block % self.chunk or self.block % self.core:
            raise SettingError(
                f"a block is made of whole chunks and cores, got block={self.block}, "
                f"chunk={self.chunk}, core={self.core}"
            )

    @property
    def mask_length(self) -> int:
        """Pixels of the mask."""
        return self.scale.mask_px(self.length)

    @property
    def stride(self) -> int:
        """Distance of neighbouring tiles in the image."""
        return self.scale.image_px(self.core)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return -(-self.mask_length // self.block)

    @property
    def blended(self) -> bool:
        """Whether neighbouring tiles overlap in what is kept of them."""
        return self.window > self.core

    @property
    def tiles(self) -> int:
        """Number of tiles that are run; one that straddles two blocks counts for both."""
        return sum(len(self.tiles_over(self.block_span(block))) for block in range(self.blocks))

    def block_span(self, block: int) -> Interval:
        """Return the pixels of a block, cut off at the mask's end."""
        return Interval(block * self.block, min((block + 1) * self.block, self.mask_length))

    def tiles_over(self, span: Interval) -> range:
        """Return the tiles whose window meets ``span``; negative ones begin before the mask."""
        return range((span.start - self.window) // self.core + 1, -(-span.stop // self.core))

    def tile_span(self, tile: int) -> Interval:
        """Return the pixels of the image that a tile is fed."""
        start = tile * self.stride - self.lead
        return Interval(start, start + self.tile)

    def window_span(self, tile: int) -> Interval:
        """Return the pixels of the mask that are kept of a tile."""
        return Interval(tile * self.core, tile * self.core + self.window)

    def input_span(self, tiles: range) -> Interval:
        """Return the pixels of the image that a run of tiles is fed."""
        return Interval(self.tile_span(tiles[0]).start, self.tile_span(tiles[-1]).stop)


def exact_grid(
    length: int, geometry: AxisGeometry, *, core_limit: int, tile: int | None = None
) -> AxisGrid:
    """Return the grid whose cores meet without overlap, all at one pooling phase.

    Args:
        length: Pixels of the image along the axis.
        geometry: The network's geometry along the axis.
        core_limit: Largest core in pixels of the image, for a network that takes several sizes.
        tile: Tile size in pixels; ``None`` chooses the smallest that holds the cores.

    Raises:
        SettingError: The tile is not one the network takes, or its halo leaves no core.
    """
    period, scale = geometry.period_out, geometry.scale
    if tile is None and not geometry.fixed:
        largest = max(period, scale.mask_px(core_limit) // period * period)
        mask_length = scale.mask_px(length)
        count = -(-mask_length // largest)
        core = -(-mask_length // count // period) * period
        tile = geometry.tile_of_core(core)
    else:
        tile = geometry.size if tile is None else tile
        check_tile(tile, geometry)
        core = geometry.core_of(tile)
    if core == 0:
        raise SettingError(
            f"a halo of {geometry.halo_before} + {geometry.halo_after} px leaves no core in the "
            f"{geometry.output(tile)}-px output of a {tile}-px tile; use a larger tile, "
            "a smaller halo, or blend"
        )
    lead = geometry.lead(geometry.halo_aligned)
    return with_chunks(length, tile, lead, core, core, scale)


def overlapping_grid(
    length: int,
    geometry: AxisGeometry,
    *,
    overlap: float,
    size_limit: int,
    blended: bool,
    tile: int | None = None,
) -> AxisGrid:
    """Return the grid whose tiles overlap by a share of their output.

    Args:
        length: Pixels of the image along the axis.
        geometry: The network's geometry along the axis; its halo is not cropped.
        overlap: Share of the output that neighbouring tiles have in common, in ``[0, 1)``.
        size_limit: Largest output of a tile, in pixels of the image, for a network that takes
            several sizes.
        blended: Keep the whole output, to be added up; else only the middle, so that nothing
            overlaps.
        tile: Tile size in pixels.

    Raises:
        SettingError: The tile is not one the network takes, or the overlap is not in ``[0, 1)``.
    """
    if not 0 <= overlap < 1:
        raise SettingError(f"overlap={overlap} is not a share; use 0 <= overlap < 1")
    scale, period = geometry.scale, geometry.period_out
    if tile is None:
        free = not geometry.fixed
        tile = geometry.tile_for(scale.mask_px(size_limit)) if free else geometry.size
    check_tile(tile, geometry)
    whole = geometry.lead(0)
    output = geometry.output(tile) - geometry.crop(whole)
    core = max(1, round(output * (1 - overlap)))
    # The nearest phase-true step that does not overlap less, or else whole pixels of the image.
    grain = period if core >= period else scale.up
    core = max(grain, core // grain * grain)
    if blended:
        return with_chunks(length, tile, whole, output, core, scale)
    crop = (output - core) // 2 // period * period
    return with_chunks(length, tile, geometry.lead(crop), core, core, scale)


def check_tile(tile: int, geometry: AxisGeometry) -> None:
    """Raise a ``SettingError`` that names the next valid sizes where ``tile`` is not one."""
    if geometry.takes(tile):
        return
    if geometry.fixed:
        raise SettingError(
            f"tile={tile} px is not possible: the network takes {geometry.size} px only"
        )
    valid = f"(valid sizes are {geometry.size} + {geometry.step} k)"
    if tile < geometry.size:
        raise SettingError(
            f"tile={tile} px is smaller than the smallest that the network takes; use "
            f"{geometry.size} px or more {valid}"
        )
    below = geometry.size + (tile - geometry.size) // geometry.step * geometry.step
    raise SettingError(
        f"tile={tile} px would run at a wrong pooling phase; use {below} or "
        f"{below + geometry.step} px {valid}"
    )


def with_chunks(
    length: int, tile: int, lead: int, window: int, core: int, scale: Scale = SAME
) -> AxisGrid:
    """Return the grid with chunks of whole cores near ``CHUNK_PX``, one chunk a block."""
    cores = max(CHUNK_PX // core, -(-SMALLEST_CHUNK_PX // core))
    cores = min(cores, -(-scale.mask_px(length) // core))
    return AxisGrid(length, tile, lead, window, core, cores * core, cores * core, scale)
