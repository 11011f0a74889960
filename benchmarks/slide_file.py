"""How a slide is coded, which a figure of reading it must be read with; and one of any size."""

import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tile_infer.engine.networks.tissue import JPEG_QUALITY, write_slide

MADE_PX = 4096
"""Side of the part of a slide that repeats."""


def described(image: Path) -> dict[str, Any]:
    """Return how an image is coded."""
    with tifffile.TiffFile(image) as file:
        page = file.pages.first
        height, width = page.shape[:2]
        subsampling = page.tags.get("YCbCrSubSampling")
        return {
            "size_px": [height, width],
            "tile_px": [page.tilelength, page.tilewidth],
            "compression": page.compression.name,
            "jpeg_quality": JPEG_QUALITY,
            "subsampling": None if subsampling is None else list(subsampling.value),
            "bits_per_px": round(8 * sum(page.databytecounts) / (height * width), 2),
        }


def write_repeated(path: Path, side: int, seed: int = 11) -> None:
    """Write a square slide whose coded tiles repeat every ``MADE_PX``: textured, and soon made."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name) / "part.tif"
        write_slide(made, (MADE_PX, MADE_PX), seed)
        with tifffile.TiffFile(made) as file:
            page = file.pages.first
            tile = page.tilewidth
            places = zip(page.dataoffsets, page.databytecounts, strict=True)
            raw = made.read_bytes()
            coded = [raw[start : start + size] for start, size in places]
    across, every = -(-side // tile), MADE_PX // tile
    grid = product(range(across), range(across))
    tifffile.imwrite(
        path,
        (coded[y % every * every + x % every] for y, x in grid),
        shape=(side, side, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(tile, tile),
        compression="jpeg",
        bigtiff=True,
        metadata=None,
    )
