"""Small MRXS and VMS slides, written for tests: JPEG tiles in the containers of two scanners."""

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILE_PX = 64
MISSING = (2, 2)
"""Column and row of the tile of each MRXS level that was not scanned."""

_ID = "0123456789ABCDEF"
_BEGIN = b"01.02" + _ID.encode()
_INI = f"""\ufeff[GENERAL]
SLIDE_VERSION=01.02
SLIDE_ID={_ID}
IMAGENUMBER_X={{columns}}
IMAGENUMBER_Y={{rows}}
OBJECTIVE_MAGNIFICATION=20
CameraImageDivisionsPerSide=1
[HIERARCHICAL]
HIER_COUNT=1
NONHIER_COUNT=0
INDEXFILE=Index.dat
HIER_0_NAME=Slide zoom level
HIER_0_COUNT=2
HIER_0_VAL_0_SECTION=LEVEL_0
HIER_0_VAL_1_SECTION=LEVEL_1
[DATAFILE]
FILE_COUNT=1
FILE_0=Data0000.dat
"""
_LEVEL = f"""[LEVEL_{{level}}]
OVERLAP_X=0
OVERLAP_Y=0
MICROMETER_PER_PIXEL_X={{mpp}}
MICROMETER_PER_PIXEL_Y={{mpp}}
IMAGE_FILL_COLOR_BGR={{fill}}
DIGITIZER_WIDTH={TILE_PX}
DIGITIZER_HEIGHT={TILE_PX}
IMAGE_FORMAT=JPEG
IMAGE_CONCAT_FACTOR={{level}}
"""
_VMS = """[Virtual Microscope Specimen]
NoLayers=1
NoJpegColumns=2
NoJpegRows=1
ImageFile=left.jpg
ImageFile(1,0)=right.jpg
MapFile=map.jpg
MacroImage=map.jpg
PhysicalWidth={width_nm}
PhysicalHeight={height_nm}
SourceLens=20
"""


def write_mrxs(
    path: Path, columns: int, rows: int, fill: tuple[int, int, int], mpp: float = 0.25
) -> list[NDArray[np.uint8]]:
    """Write a slide of noise and return its two levels ``(y, x, 3)`` as its JPEGs decode.

    Args:
        path: The file; the others go to the folder beside it, of its name.
        columns: Tiles of level 0 per row, even.
        rows: Tiles of level 0 per column, even.
        fill: Red, green and blue of what was not scanned.
        mpp: Micrometers per pixel of level 0.
    """
    beside = path.with_suffix("")
    beside.mkdir()
    rng = np.random.default_rng(0)
    data, index = bytearray(_BEGIN), bytearray(_BEGIN + bytes(8))
    levels, pages = [], []
    for level in range(2):
        size = rows * TILE_PX >> level, columns * TILE_PX >> level
        image = np.empty((*size, 3), np.uint8)
        image[:] = fill
        entries = []
        for row, column in np.ndindex(rows >> level, columns >> level):
            if (column, row) == MISSING:
                continue
            jpeg, pixels = _jpeg(rng.integers(0, 256, (TILE_PX, TILE_PX, 3), np.uint8))
            number = (row * columns + column) << level
            entries.append(struct.pack("<4i", number, len(data), len(jpeg), 0))
            data += jpeg
            y, x = row * TILE_PX, column * TILE_PX
            image[y : y + TILE_PX, x : x + TILE_PX] = pixels
        levels.append(image)
        pages.append(len(index))
        index += struct.pack("<4i", 0, len(index) + 8, len(entries), 0) + b"".join(entries)
    table = len(index)
    index += struct.pack("<2i", *pages)
    index[len(_BEGIN) : len(_BEGIN) + 8] = struct.pack("<2i", table, table)
    colour = fill[0] + (fill[1] << 8) + (fill[2] << 16)
    ini = _INI.format(columns=columns, rows=rows)
    ini += "".join(_LEVEL.format(level=n, mpp=mpp * 2**n, fill=colour) for n in range(2))
    (beside / "Data0000.dat").write_bytes(data)
    (beside / "Index.dat").write_bytes(index)
    (beside / "Slidedat.ini").write_bytes(ini.encode())
    path.write_bytes(_jpeg(np.zeros((8, 8, 3), np.uint8))[0])  # a picture of the slide
    return levels


def write_vms(
    path: Path, left: NDArray[np.uint8], right: NDArray[np.uint8], mpp: float = 0.5
) -> NDArray[np.uint8]:
    """Write two JPEGs side by side, widths a multiple of 64, and return what they decode to."""
    parts = []
    height, width = left.shape[0], left.shape[1] + right.shape[1]
    files = {"left": left, "right": right, "map": left[: height // 4, : width // 4]}
    for name, pixels in files.items():
        jpeg, decoded = _jpeg(pixels, restart_marker_blocks=TILE_PX // 8)
        path.with_name(f"{name}.jpg").write_bytes(jpeg)
        parts.append(decoded)
    nanometers = {"width_nm": int(width * mpp * 1000), "height_nm": int(height * mpp * 1000)}
    path.write_text(_VMS.format(**nanometers))
    return np.concatenate(parts[:2], axis=1)


def _jpeg(pixels: NDArray[np.uint8], **options: int) -> tuple[bytes, NDArray[np.uint8]]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0, **options)
    return file.getvalue(), np.asarray(Image.open(file))
