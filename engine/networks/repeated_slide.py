"""A slide of any size within a second: a patch of synthetic tissue, over and over."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .tissue import write_slide

PATCH_PX = 1024
"""Side of the patch: long enough that no two neighbouring JPEG tiles are alike."""


def write_repeated_slide(path: Path, shape: tuple[int, int], seed: int = 0) -> None:
    """Write a tiled JPEG TIFF as ``write_slide`` does, whose pixels repeat.

    The patch is made and compressed once and its bytes are copied, so that a slide for a fast
    device is there at once; it takes as long to read as any other.

    Args:
        path: The TIFF to write.
        shape: Height and width in pixels.
        seed: Which tissue.
    """
    import tifffile

    patch = path.with_name(f"{path.stem}.patch.tif")
    write_slide(patch, (PATCH_PX, PATCH_PX), seed)
    try:
        with tifffile.TiffFile(patch) as tiff:
            page = tiff.pages.first
            pieces = [
                piece
                for piece, _ in tiff.filehandle.read_segments(
                    page.dataoffsets, page.databytecounts, sort=False
                )
            ]
    finally:
        patch.unlink()
    side = page.tilewidth
    along = PATCH_PX // side

    def tiles() -> Iterator[bytes | None]:
        for row in range(-(-shape[0] // side)):
            for column in range(-(-shape[1] // side)):
                yield pieces[row % along * along + column % along]

    tifffile.imwrite(
        path,
        tiles(),
        shape=(*shape, 3),
        dtype=np.uint8,
        photometric=page.photometric,
        subsampling=page.subsampling,
        tile=(side, side),
        compression=page.compression,
        metadata=None,
    )
