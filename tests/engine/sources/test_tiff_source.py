from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tile_infer.engine.sources import positional_file, tiff_pages
from tile_infer.engine.sources.tiff import TiffSource
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError, SettingError

HEIGHT, WIDTH = 150, 210


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def whole(source: TiffSource, level: int = 0) -> NDArray[Any]:
    height, width = source.facts.levels[level].shape
    return source.read(level, Box.of(0, height, 0, width))


KINDS: dict[str, tuple[str, tuple[int, ...], str, dict[str, Any]]] = {
    "tiled grey": ("YX", (HEIGHT, WIDTH), "uint8", {"tile": (64, 48), "compression": "zlib"}),
    "tiled, plain": ("YX", (HEIGHT, WIDTH), "uint16", {"tile": (64, 48)}),
    "striped": ("YX", (HEIGHT, WIDTH), "uint16", {"rowsperstrip": 7, "compression": "zstd"}),
    "one plain strip": ("YX", (HEIGHT, WIDTH), "int32", {}),
    "plain RGB": ("YXC", (HEIGHT, WIDTH, 3), "uint8", {"photometric": "rgb"}),
    "float": ("YX", (HEIGHT, WIDTH), "float32", {"tile": (32, 32), "compression": "lzw"}),
    "float, predicted": (
        "YX",
        (HEIGHT, WIDTH),
        "float32",
        {"tile": (32, 32), "compression": "zlib", "predictor": True},
    ),
    "double": ("YX", (HEIGHT, WIDTH), "float64", {"compression": "zstd", "predictor": True}),
    "signed bytes": ("YX", (HEIGHT, WIDTH), "int8", {"tile": (32, 32), "compression": "zlib"}),
    "64-bit": ("YX", (HEIGHT, WIDTH), "uint64", {"rowsperstrip": 20, "compression": "lzma"}),
    "signed 64-bit": ("YX", (HEIGHT, WIDTH), "int64", {"byteorder": ">", "tile": (64, 64)}),
    "LERC": ("YX", (HEIGHT, WIDTH), "float32", {"tile": (64, 64), "compression": "lerc"}),
    "JPEG 2000": ("YX", (HEIGHT, WIDTH), "uint16", {"tile": (64, 64), "compression": "jpeg2000"}),
    "LERC, whole numbers": ("YX", (HEIGHT, WIDTH), "uint16", {"compression": "lerc"}),
    "JPEG XL": (
        "YXC",
        (HEIGHT, WIDTH, 3),
        "uint8",
        {
            "photometric": "rgb",
            "tile": (64, 64),
            "compression": "jpegxl",
            "compressionargs": {"lossless": True},
        },
    ),
    "unsigned 32-bit": (
        "YX",
        (HEIGHT, WIDTH),
        "uint32",
        {"compression": "zstd", "predictor": True},
    ),
    "JPEG 2000, RGB": (
        "YXC",
        (HEIGHT, WIDTH, 3),
        "uint8",
        {"photometric": "rgb", "tile": (64, 64), "compression": "jpeg2000"},
    ),
    "WebP": (
        "YXC",
        (HEIGHT, WIDTH, 3),
        "uint8",
        {
            "photometric": "rgb",
            "tile": (64, 64),
            "compression": "webp",
            "compressionargs": {"lossless": True},
        },
    ),
    "half": ("YX", (HEIGHT, WIDTH), "float16", {"tile": (32, 32)}),
    "RGB tiles": (
        "YXC",
        (HEIGHT, WIDTH, 3),
        "uint8",
        {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "predictor": True},
    ),
    "RGBA strips": (
        "YXC",
        (HEIGHT, WIDTH, 4),
        "uint8",
        {"photometric": "rgb", "rowsperstrip": 16, "compression": "packbits"},
    ),
    "planar tiles": (
        "CYX",
        (3, HEIGHT, WIDTH),
        "uint16",
        {
            "photometric": "rgb",
            "planarconfig": "separate",
            "tile": (64, 48),
            "compression": "zlib",
        },
    ),
    "planar strips": (
        "CYX",
        (3, HEIGHT, WIDTH),
        "uint8",
        {"photometric": "rgb", "planarconfig": "separate", "rowsperstrip": 11},
    ),
    "channels in pages": (
        "CYX",
        (5, HEIGHT, WIDTH),
        "uint16",
        {
            "photometric": "minisblack",
            "metadata": {"axes": "CYX"},
            "tile": (64, 64),
            "compression": "zlib",
        },
    ),
    "channels in plain pages": (
        "CYX",
        (5, HEIGHT, WIDTH),
        "uint8",
        {"photometric": "minisblack", "metadata": {"axes": "CYX"}},
    ),
    "axes of length 1": (
        "CYX",
        (1, 2, 1, HEIGHT, WIDTH),
        "uint8",
        {"photometric": "minisblack", "metadata": {"axes": "TCZYX"}, "ome": True},
    ),
    "big-endian": ("YX", (HEIGHT, WIDTH), "uint16", {"byteorder": ">"}),
    "big-endian tiles": (
        "YX",
        (HEIGHT, WIDTH),
        "int16",
        {"byteorder": ">", "tile": (64, 64), "compression": "zlib", "predictor": True},
    ),
    "BigTIFF": ("YX", (HEIGHT, WIDTH), "uint8", {"bigtiff": True, "tile": (64, 64)}),
    "ImageJ": ("CYX", (3, HEIGHT, WIDTH), "uint16", {"imagej": True, "metadata": {"axes": "CYX"}}),
}


def write(path: Path, kind: str) -> NDArray[Any]:
    """Write a file and return its pixels as (y, x, channel)."""
    axes, shape, dtype, options = KINDS[kind]
    pixels = noise(shape, dtype)
    tifffile.imwrite(path, pixels, **options)
    pixels = pixels.squeeze()
    if axes == "CYX":
        return np.moveaxis(pixels, 0, -1)
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.fixture(scope="module", params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("tiff") / "image.tif"
    pixels = write(path, request.param)
    source = TiffSource(path)
    yield KINDS[request.param][0], source, pixels
    source.close()


def test_facts_are_those_of_the_array_written(opened: Any) -> None:
    axes, source, pixels = opened
    assert source.facts.axes == axes
    assert source.facts.levels[0].shape == pixels.shape[:2]
    assert source.facts.channels == pixels.shape[2]
    assert source.facts.dtype == pixels.dtype.name


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_box_and_channels_equal_the_array_written(opened: Any, data: st.DataObject) -> None:
    _, source, pixels = opened
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, HEIGHT)] * 2)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, WIDTH)] * 2)))
    wanted = data.draw(
        st.none() | st.lists(st.integers(0, pixels.shape[2] - 1), min_size=1).map(tuple)
    )
    got = source.read(0, Box.of(y0, y1, x0, x1), wanted)
    part = pixels[y0:y1, x0:x1]
    np.testing.assert_array_equal(got, part if wanted is None else part[..., list(wanted)])
    assert got.dtype == pixels.dtype
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert got.flags.writeable


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_jpeg_tiles_become_rgb_as_in_tifffile(tmp_path: Path, photometric: str) -> None:
    ramp = np.mgrid[0:HEIGHT, 0:WIDTH].sum(0).astype(np.uint8)
    pixels = np.stack([ramp, 255 - ramp, ramp // 2], -1)
    path = tmp_path / "jpeg.tif"
    tifffile.imwrite(path, pixels, photometric=photometric, tile=(64, 64), compression="jpeg")
    source = TiffSource(path)
    np.testing.assert_array_equal(whole(source), tifffile.imread(path))
    # tifffile takes what it writes as "ycbcr" for luma and chroma: those come back converted.
    unchanged = np.abs(whole(source).astype(int) - pixels).mean() < 8
    assert unchanged == (photometric == "rgb")
    source.close()


def test_bilevel_pixels_are_zeros_and_ones(tmp_path: Path) -> None:
    pixels = noise((33, 47), "uint8") > 127
    tifffile.imwrite(tmp_path / "bits.tif", pixels)
    source = TiffSource(tmp_path / "bits.tif")
    assert source.facts.dtype == "bool"
    np.testing.assert_array_equal(whole(source)[..., 0], pixels.astype(np.uint8))
    source.close()


def write_pyramid(path: Path) -> list[NDArray[Any]]:
    full = noise((3, 400, 600), "uint8")
    levels = [full, full[:, ::2, ::2], full[:, ::4, ::4]]
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "minisblack", "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        metadata = {
            "axes": "CYX",
            "PhysicalSizeX": 0.5,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 250.0,
            "PhysicalSizeYUnit": "nm",
        }
        tiff.write(full, subifds=2, metadata=metadata, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    return [np.moveaxis(level, 0, -1) for level in levels]


def test_ome_pyramid_has_all_levels_with_their_pixel_sizes(tmp_path: Path) -> None:
    levels = write_pyramid(tmp_path / "a.ome.tif")
    source = TiffSource(tmp_path / "a.ome.tif")
    assert source.facts.unit == "micrometer"
    assert [level.pixel_size for level in source.facts.levels] == [
        (0.25, 0.5),
        (0.5, 1.0),
        (1.0, 2.0),
    ]
    for number, pixels in enumerate(levels):
        np.testing.assert_array_equal(whole(source, number), pixels)
    source.close()


@pytest.mark.parametrize("nodata", [None, 77])
def test_missing_tiles_of_a_sparse_file_hold_the_nodata_value(
    tmp_path: Path, nodata: int | None
) -> None:
    path = tmp_path / "sparse.tif"
    tags = [] if nodata is None else [(42113, "s", 0, str(nodata), True)]
    tile = noise((64, 64), "uint8")
    tiles = iter([tile, None, None, tile])
    tifffile.imwrite(
        path,
        tiles,
        shape=(128, 128),
        dtype="uint8",
        tile=(64, 64),
        compression="zlib",
        extratags=tags,
    )
    with tifffile.TiffFile(path, mode="r+") as tiff:  # the writer stores zeros; drop two tiles
        for name in ("TileByteCounts", "TileOffsets"):
            tag = tiff.pages[0].tags[name]
            tag.overwrite([tag.value[0], 0, 0, tag.value[3]])
    source = TiffSource(path)
    expected = np.full((128, 128, 1), nodata or 0, np.uint8)
    expected[:64, :64, 0] = expected[64:, 64:, 0] = tile
    np.testing.assert_array_equal(whole(source), expected)
    np.testing.assert_array_equal(whole(source)[..., 0], tifffile.imread(path))
    source.close()


@pytest.mark.parametrize(
    ("box", "tiles"),
    [
        (Box.of(64, 128, 48, 96), 1),
        (Box.of(65, 66, 49, 50), 1),
        (Box.of(63, 65, 47, 49), 4),
        (Box.of(0, 1, 0, WIDTH), 5),
        (Box.of(10, 10, 0, WIDTH), 0),
    ],
)
def test_only_the_tiles_that_a_box_touches_are_decoded(
    tmp_path: Path, box: Box, tiles: int
) -> None:
    write(tmp_path / "a.tif", "tiled grey")
    source = TiffSource(tmp_path / "a.tif")
    source.read(0, box)
    assert source.cache.decoded == tiles
    source.read(0, box)
    assert source.cache.decoded == tiles  # the second time from the cache
    source.close()


def test_only_the_planes_asked_for_are_decoded(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", "planar tiles")
    source = TiffSource(tmp_path / "a.tif")
    source.read(0, Box.of(0, 64, 0, 48), (2,))
    assert source.cache.decoded == 1
    source.close()


def test_one_giant_plain_strip_is_read_only_inside_the_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise((1000, 1000), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    source = TiffSource(tmp_path / "a.tif")
    sizes = []
    read_once = positional_file.PositionalFile._read_once

    def counted(file: positional_file.PositionalFile, start: int, size_bytes: int) -> bytes:
        sizes.append(size_bytes)
        return read_once(file, start, size_bytes)

    monkeypatch.setattr(positional_file.PositionalFile, "_read_once", counted)
    got = source.read(0, Box.of(500, 510, 300, 320))
    np.testing.assert_array_equal(got[..., 0], pixels[500:510, 300:320])
    assert sum(sizes) == 10 * 20 * 2
    source.close()


def test_threads_reading_at_once_get_the_same_pixels(tmp_path: Path) -> None:
    pixels = write(tmp_path / "a.tif", "RGB tiles")
    source = TiffSource(tmp_path / "a.tif", cache_bytes=40_000)  # three tiles: much is evicted
    rng = np.random.default_rng(1)
    boxes = [
        Box.of(y, y + 50, x, x + 60)
        for y, x in zip(
            rng.integers(0, HEIGHT - 50, 80).tolist(),
            rng.integers(0, WIDTH - 60, 80).tolist(),
            strict=True,
        )
    ]
    with ThreadPoolExecutor(4) as pool:
        for box, got in zip(boxes, pool.map(lambda b: source.read(0, b), boxes), strict=True):
            np.testing.assert_array_equal(got, pixels[box.slices])
    source.close()


@pytest.mark.parametrize("kind", ["tiled, plain", "one plain strip", "RGB tiles", "planar strips"])
def test_file_cut_in_its_pixels_names_file_level_and_rectangle(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cut.tif"
    pixels = write(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 400])
    source = TiffSource(path)
    with pytest.raises(ImageError, match=r"cut\.tif: level 0, pixels y \d+:\d+, x \d+:\d+ .*ends"):
        whole(source)
    beginning = Box.of(0, 10, 0, 10)
    np.testing.assert_array_equal(
        source.read(0, beginning, (0,)), pixels[beginning.slices][..., :1]
    )
    source.close()


def test_segment_that_does_not_decode_names_its_rectangle(tmp_path: Path) -> None:
    path = tmp_path / "bad.tif"
    write(path, "tiled grey")
    with tifffile.TiffFile(path) as tiff:
        offset, size = tiff.pages[0].dataoffsets[6], tiff.pages[0].databytecounts[6]
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = b"\x55" * size
    path.write_bytes(content)
    source = TiffSource(path)
    with pytest.raises(ImageError, match=r"level 0, pixels y 64:128, x 48:96 "):
        whole(source)
    source.read(0, Box.of(0, 64, 0, WIDTH))
    source.close()


@pytest.mark.parametrize("kept_bytes", [4, 8, 30, 100, 250])
def test_file_cut_in_its_header_is_refused(tmp_path: Path, kept_bytes: int) -> None:
    path = tmp_path / "cut.tif"
    write(path, "tiled grey")
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(ImageError, match=r"cut\.tif"):
        whole(TiffSource(path))


def test_strip_larger_than_the_free_memory_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    pixels = noise((150, 210), "uint16")
    tifffile.imwrite(path, pixels, rowsperstrip=150, compression="zlib")
    monkeypatch.setattr(tiff_pages, "available_bytes", lambda: 2 * 150 * 210)
    np.testing.assert_array_equal(whole(TiffSource(path))[..., 0], pixels)
    monkeypatch.setattr(tiff_pages, "available_bytes", lambda: 2 * 150 * 210 - 1)
    with pytest.raises(ImageError, match=r"a\.tif has some of 150 x 210 px .* tiled TIFF"):
        TiffSource(path)
    tifffile.imwrite(path, pixels, tile=(16, 16), compression="zlib")
    TiffSource(path).close()


def test_stack_is_refused_with_its_axes_and_lengths(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(
        path, noise((4, 3, 20, 30), "uint8"), metadata={"axes": "ZCYX"}, photometric="minisblack"
    )
    with pytest.raises(ImageError, match=r"Z \(4\), C \(3\), Y \(20\), X \(30\)"):
        TiffSource(path)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 30), np.complex64))
    with pytest.raises(ImageError, match="complex64"):
        TiffSource(tmp_path / "a.tif")


def test_axes_that_contradict_a_tiff_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", "tiled grey")
    with pytest.raises(SettingError, match="names its own axes"):
        TiffSource(tmp_path / "a.tif", axes="XY")


def test_reading_after_close_raises(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", "tiled grey")
    source = TiffSource(tmp_path / "a.tif")
    source.close()
    with pytest.raises(ImageError, match="closed"):
        whole(source)


@pytest.mark.parametrize(
    ("level", "box", "channels"),
    [
        (1, Box.of(0, 1, 0, 1), None),
        (-1, Box.of(0, 1, 0, 1), None),
        (0, Box.of(-1, 1, 0, 1), None),
        (0, Box.of(0, 1, 0, WIDTH + 1), None),
        (0, Box.of(0, 1, 0, 1), (3,)),
    ],
)
def test_request_outside_the_image_is_refused(
    tmp_path: Path, level: int, box: Box, channels: tuple[int, ...] | None
) -> None:
    write(tmp_path / "a.tif", "RGB tiles")
    source = TiffSource(tmp_path / "a.tif")
    with pytest.raises(SettingError):
        source.read(level, box, channels)
    source.close()
