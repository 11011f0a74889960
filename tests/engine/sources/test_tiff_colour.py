from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.sources.tiff import TiffSource
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError

RNG = np.random.default_rng(0)
INDICES = RNG.integers(0, 256, (50, 70), np.uint8)
COLOURS_8_BIT = RNG.integers(0, 256, (3, 256), np.uint16)
_EXTRA_SAMPLES, _PHOTOMETRIC, _COLOUR_MAP = 338, 262, 320


def whole(path: Path, level: int = 0) -> tuple[TiffSource, NDArray[Any]]:
    source = TiffSource(path)
    height, width = source.facts.levels[level].shape
    pixels = source.read(level, Box.of(0, height, 0, width))
    source.close()
    return source, pixels


@pytest.mark.parametrize(
    ("stored", "colours"),
    [
        (COLOURS_8_BIT * 257, COLOURS_8_BIT.astype(np.uint8)),
        (COLOURS_8_BIT * 256, COLOURS_8_BIT.astype(np.uint8)),
        (COLOURS_8_BIT, COLOURS_8_BIT.astype(np.uint8)),
        (COLOURS_8_BIT * 255 + 3, COLOURS_8_BIT * 255 + 3),
    ],
    ids=["multiples of 257", "multiples of 256", "below 256", "true 16 bit"],
)
@pytest.mark.parametrize("options", [{}, {"tile": (32, 16), "compression": "zlib"}])
def test_palette_becomes_its_colours(
    tmp_path: Path, stored: NDArray[Any], colours: NDArray[Any], options: dict[str, Any]
) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, INDICES, photometric="palette", colormap=stored, **options)
    source, pixels = whole(path)
    assert (source.facts.channels, source.facts.axes) == (3, "YXC")
    assert source.facts.dtype == pixels.dtype.name == colours.dtype.name
    np.testing.assert_array_equal(pixels, colours.T[INDICES])
    again = TiffSource(path)
    np.testing.assert_array_equal(
        again.read(0, Box.of(7, 33, 9, 41), (2, 0)), colours.T[INDICES[7:33, 9:41]][..., [2, 0]]
    )
    again.close()


def test_palette_of_a_pyramid_colours_every_level(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    options: dict[str, Any] = {"photometric": "palette", "colormap": COLOURS_8_BIT * 257}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(INDICES, subifds=1, tile=(16, 16), **options)
        tiff.write(INDICES[::2, ::2], subfiletype=1, tile=(16, 16), **options)
    source, pixels = whole(path, 1)
    assert len(source.facts.levels) == 2
    np.testing.assert_array_equal(pixels, COLOURS_8_BIT.T[INDICES[::2, ::2]])


def test_index_beyond_the_palette_names_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, INDICES, photometric="palette", colormap=COLOURS_8_BIT)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags[_COLOUR_MAP].overwrite(COLOURS_8_BIT[:, :100].ravel(), erase=False)
    with pytest.raises(ImageError, match=r"p\.tif: level 0, .* has 100 colours"):
        whole(path)


def test_palette_beside_a_channel_axis_leaves_the_channels(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    pixels = RNG.integers(0, 256, (2, 50, 70), np.uint8)
    tifffile.imwrite(
        path, pixels, photometric="palette", colormap=COLOURS_8_BIT, metadata={"axes": "CYX"}
    )
    np.testing.assert_array_equal(whole(path)[1], np.moveaxis(pixels, 0, -1))


def test_white_is_zero_is_not_inverted(tmp_path: Path) -> None:
    path = tmp_path / "w.tif"
    tifffile.imwrite(path, INDICES, photometric="miniswhite")
    np.testing.assert_array_equal(whole(path)[1][..., 0], INDICES)


@pytest.mark.parametrize(
    ("samples", "extra", "alpha"),
    [
        (4, ["unassalpha"], 3),
        (4, ["assocalpha"], 3),
        (4, ["unspecified"], None),
        (5, ["unspecified", "unassalpha"], 4),
        (5, ["assocalpha", "unspecified"], 3),
        (3, [], None),
    ],
)
@pytest.mark.parametrize("planar", [False, True])
def test_alpha_is_named_and_stays_a_channel(
    tmp_path: Path, samples: int, extra: list[str], alpha: int | None, planar: bool
) -> None:
    path = tmp_path / "a.tif"
    pixels = RNG.integers(0, 256, (50, 70, samples), np.uint8)
    tifffile.imwrite(
        path,
        np.moveaxis(pixels, -1, 0) if planar else pixels,
        photometric="rgb",
        planarconfig="separate" if planar else "contig",
        extrasamples=extra or None,
    )
    source, got = whole(path)
    assert source.facts.alpha == alpha
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize(
    ("photometric", "samples", "word"),
    [
        (5, 4, "CMYK"),
        (6, 3, "YCbCr"),
        (8, 3, r"L\*a\*b\*"),
        (32803, 1, "mosaic"),
        (32845, 3, "LogLuv"),
    ],
)
def test_other_colour_spaces_are_refused_by_name(
    tmp_path: Path, photometric: int, samples: int, word: str
) -> None:
    path = tmp_path / "c.tif"
    pixels = RNG.integers(0, 256, (20, 30, samples), np.uint8)
    tifffile.imwrite(path, pixels.squeeze(), photometric="rgb" if samples > 2 else "minisblack")
    whole(path)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags[_PHOTOMETRIC].overwrite(photometric)
    with pytest.raises(ImageError, match=rf"c\.tif holds .*{word}.*; convert it to RGB"):
        TiffSource(path)
