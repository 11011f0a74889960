"""Tiles, blocks and chunks of an image: one axis times the other."""

from dataclasses import dataclass, replace

from .axis import AxisGrid
from .box import Box
from .mirror import mirrored_region
from .scale import Scale


@dataclass(frozen=True, slots=True)
class Grid:
    """Where everything lies. Blocks are numbered row by row; a tile is ``(row, column)``."""

    y: AxisGrid
    x: AxisGrid

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the mask in pixels."""
        return self.y.mask_length, self.x.mask_length

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.y.length, self.x.length

    @property
    def scale(self) -> Scale:
        """Pixels of the mask per pixel of the image, the same along both axes."""
        return self.y.scale

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of a tile in pixels of the image."""
        return self.y.tile, self.x.tile

    @property
    def core(self) -> tuple[int, int]:
        """Distance of neighbouring tiles in pixels of the mask."""
        return self.y.core, self.x.core

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of what is kept of a tile, in pixels."""
        return self.y.window, self.x.window

    @property
    def chunk(self) -> tuple[int, int]:
        """Height and width of a chunk in pixels."""
        return self.y.chunk, self.x.chunk

    @property
    def block(self) -> tuple[int, int]:
        """Height and width of a block in pixels."""
        return self.y.block, self.x.block

    @property
    def blended(self) -> bool:
        """Whether tiles overlap in what is kept of them and have to be added up."""
        return self.y.blended or self.x.blended

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.y.blocks * self.x.blocks

    @property
    def tiles(self) -> int:
        """Number of tiles that are run."""
        return self.y.tiles * self.x.tiles

    def block_box(self, block: int) -> Box:
        """Return the rectangle of a block in the mask, cut off at its end."""
        row, column = divmod(block, self.x.blocks)
        return Box(self.y.block_span(row), self.x.block_span(column))

    def tiles_over(self, box: Box) -> list[tuple[int, int]]:
        """Return the tiles whose window meets ``box``, row by row."""
        columns = self.x.tiles_over(box.x)
        return [(row, column) for row in self.y.tiles_over(box.y) for column in columns]

    def input_box(self, box: Box) -> Box:
        """Return the rectangle of the image that the tiles over ``box`` of the mask are fed.

        It may leave the image.
        """
        return Box(
            self.y.input_span(self.y.tiles_over(box.y)), self.x.input_span(self.x.tiles_over(box.x))
        )

    def region(self, box: Box) -> Box:
        """Return the pixels of the image that must be read to fill ``input_box(box)``."""
        wanted = self.input_box(box)
        return Box(
            mirrored_region(wanted.y, self.y.length), mirrored_region(wanted.x, self.x.length)
        )

    def tile_box(self, tile: tuple[int, int]) -> Box:
        """Return the rectangle that a tile is fed; may leave the image."""
        return Box(self.y.tile_span(tile[0]), self.x.tile_span(tile[1]))

    def window_box(self, tile: tuple[int, int]) -> Box:
        """Return the rectangle of the mask that is kept of a tile; may leave the mask."""
        return Box(self.y.window_span(tile[0]), self.x.window_span(tile[1]))

    def with_blocks(self, chunks: tuple[int, int]) -> "Grid":
        """Return the grid with blocks of ``chunks`` chunks along each axis."""
        return Grid(
            replace(self.y, block=chunks[0] * self.y.chunk),
            replace(self.x, block=chunks[1] * self.x.chunk),
        )
