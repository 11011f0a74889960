"""How a slide is coded: what a figure of reading it must be read with."""

from pathlib import Path
from typing import Any

import tifffile

from tile_infer.engine.networks.tissue import JPEG_QUALITY


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
