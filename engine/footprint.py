"""Disk that a mask takes at most, whatever is in it."""

from math import prod

from ..tiler.grid import Grid
from .backends.base import Recipe
from .stitcher.pyramid import level_shapes

FILE_BYTES = 4096
"""A file takes whole blocks of the file system: of each, up to one is lost."""

_METADATA_BYTES = 1 << 20
"""The plan, and what describes the arrays."""

_CODEC_SHARE = 1.05
"""What codecs add to noise: headers, and places where they guess wrong."""


def disk_bytes(grid: Grid, recipe: Recipe, score_bytes: int) -> int:
    """Return an upper bound for the size of a mask and its pyramid on disk.

    It holds for labels that are pure noise; others take less.

    Args:
        grid: Its chunks and blocks.
        recipe: Its classes count.
        score_bytes: Size of one score; 0 where labels alone are stored. Noise in floating-point
            numbers does not become smaller.
    """
    label_bits = _label_bits(recipe)
    total, files = _METADATA_BYTES, grid.blocks
    total += grid.blocks * 8 * (recipe.classes + 3)
    for shape in level_shapes(grid.shape):
        total += int(_CODEC_SHARE * prod(shape) * label_bits / 8)
        files += _chunk_files(shape, grid.chunk)
    if score_bytes:
        total += int(_CODEC_SHARE * prod(grid.shape) * recipe.classes * score_bytes)
        files += recipe.classes * _chunk_files(grid.shape, grid.chunk)
    return total + FILE_BYTES * files


def _label_bits(recipe: Recipe) -> int:
    """Return the bits that a label takes once compressed, "not computed" being one more label."""
    if recipe.label_dtype != "uint8":
        return 16  # two bytes side by side, one of which is almost constant: codecs lose track
    bits = (max(2, recipe.classes)).bit_length()
    # Zstandard takes chance repeats among few labels for real ones: 2.5 bits for four, measured.
    return bits if recipe.classes <= 2 else max(3, bits)


def _chunk_files(shape: tuple[int, int], chunk: tuple[int, int]) -> int:
    """Return the files of an array's chunks, and the folders of each row of them."""
    rows, columns = (-(-length // size) for length, size in zip(shape, chunk, strict=True))
    return rows * (columns + 1) + 1
