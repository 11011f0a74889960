"""Write small TIFFs of many kinds, to be damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.networks.tissue import tissue

HEIGHT, WIDTH = 200, 168
SEED = 7


def write_tiffs(folder: Path) -> list[Path]:
    """Write one file of each kind; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = tissue((HEIGHT, WIDTH), SEED).image
    grey = colours[..., 1]
    made: list[Path] = []

    def write(name: str, pixels: NDArray[Any], **options: Any) -> None:
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, pixels, **options)
        made.append(path)

    rgb: dict[str, Any] = {"photometric": "rgb"}
    tiled: dict[str, Any] = {"tile": (64, 64)}
    plain: dict[str, Any] = {"photometric": "minisblack"}
    write("raw", grey)
    write("raw_rgb", colours, **rgb)
    write("raw_tiles", colours, **rgb, **tiled)
    write("raw_strips", colours, rowsperstrip=16, **rgb)
    write("jpeg_tiles", colours, compression="jpeg", **rgb, **tiled)
    write("jpeg_grey", grey, compression="jpeg", **plain, **tiled)
    write("jpeg_strips", colours, compression="jpeg", rowsperstrip=16, **rgb)
    write("jpeg2000", colours, compression="jpeg2000", **rgb, **tiled)
    write("webp", colours, compression="webp", **rgb, **tiled)
    write("png", colours, compression="png", **rgb, **tiled)
    write("jpegxl", colours, compression="jpegxl", **rgb, **tiled)
    write("jpegxr", colours, compression="jpegxr", **rgb, **tiled)
    write("lerc", grey.astype(np.float32), compression="lerc", **tiled)
    write("deflate_strips", colours, compression="deflate", rowsperstrip=32, **rgb)
    write("deflate_predicted", grey, compression="deflate", predictor=True, **plain, **tiled)
    write("lzw", colours, compression="lzw", rowsperstrip=24, **rgb)
    write("lzw_tiles", grey, compression="lzw", predictor=True, **plain, **tiled)
    write("zstd", colours, compression="zstd", **rgb, **tiled)
    write("zstd_one_strip", grey, compression="zstd", rowsperstrip=HEIGHT, **plain)
    write("lzma", grey, compression="lzma", **plain, **tiled)
    write("packbits", grey, compression="packbits", rowsperstrip=32, **plain)
    write("ccitt", grey > 128, compression="packbits", **plain)
    write("bilevel", grey > 128, **plain, **tiled)
    write("big", colours, bigtiff=True, compression="deflate", **rgb, **tiled)
    write("big_jpeg", colours, bigtiff=True, compression="jpeg", **rgb, **tiled)
    write("big_endian", grey.astype(np.uint16) * 257, byteorder=">", compression="zstd", **plain)
    planes = np.moveaxis(colours, 2, 0).copy()
    write("planar", planes, planarconfig="separate", **rgb, **tiled)
    write("planar_strips", planes, planarconfig="separate", compression="lzw", **rgb)
    palette = np.arange(768, dtype=np.uint16).reshape(3, 256) * 85
    write("palette", grey, photometric="palette", colormap=palette, compression="deflate")
    write("float", grey.astype(np.float32), compression="zstd", predictor=True, **plain, **tiled)
    write("float16", grey.astype(np.float16), **plain, **tiled)
    write("double", grey.astype(np.float64), compression="deflate", **plain)
    write("pages", np.stack([grey] * 5), compression="deflate", metadata=None, **plain)
    write("stack", np.stack([grey] * 4), metadata={"axes": "CYX"}, **plain)
    write("ome", np.stack([grey] * 3), ome=True, metadata={"axes": "CYX"}, **plain, **tiled)
    write("imagej", np.stack([grey] * 3), imagej=True, metadata={"axes": "CYX"})
    geo = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (42113, "s", 0, "0", True)]
    geo += [(33922, "d", 6, (0.0, 0.0, 0.0, 400000.0, 5700000.0, 0.0), True)]
    write("geo", grey, compression="deflate", extratags=geo, **plain, **tiled)
    write("turned", colours, extratags=[(274, "H", 1, 6, True)], **rgb, **tiled)
    for name, options in (
        ("pyramid_jpeg", {"compression": "jpeg"}),
        ("pyramid_zstd", {"compression": "zstd", "bigtiff": True}),
    ):
        made.append(_pyramid(folder / f"{name}.tif", 480, options))
    made.append(_many_pages(folder / "many_pages.tif", grey[:16, :16]))
    return made


def _pyramid(path: Path, size_px: int, options: dict[str, Any]) -> Path:
    colours = tissue((size_px, size_px), SEED + 1).image
    bigtiff = options.pop("bigtiff", False)
    common = {"photometric": "rgb", "tile": (128, 128), **options}
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as file:
        file.write(colours, subifds=2, **common)
        for step in (2, 4):
            file.write(np.ascontiguousarray(colours[::step, ::step]), subfiletype=1, **common)
    return path


def _many_pages(path: Path, grey: NDArray[np.uint8]) -> Path:
    with tifffile.TiffWriter(path) as file:
        for _ in range(130):
            file.write(grey, contiguous=False, photometric="minisblack", metadata=None)
    return path
