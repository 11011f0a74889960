from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from tile_infer.cli import preview as module
from tile_infer.cli.palette import class_colours
from tile_infer.cli.preview import (
    MASK_OPACITY,
    overlay,
    preview_shape,
    shrunk_image,
    shrunk_mask,
)
from tile_infer.engine.sources import open_source

from .conftest import Run, Write


def read_png(path: str) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = imagecodecs.png_decode(Path(path).read_bytes())
    return picture


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((100, 200), (100, 200)),
        ((2048, 2048), (2048, 2048)),
        ((8192, 4096), (2048, 1024)),
        ((3000, 7), (2048, 5)),
        ((1, 100_000), (1, 2048)),
    ],
)
def test_a_preview_is_at_most_2048_px_long(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert preview_shape(shape) == expected


def test_preview_tints_classes_and_leaves_the_background(
    run: Run, image: Write, bright: Path
) -> None:
    pixels = np.full((30, 40), 100, np.uint8)
    pixels[:, 20:] = 200
    done = run(image("slide.tif", pixels), "--model", bright, "--preview", "p.png")
    assert done.code == 0
    picture = read_png("p.png")
    assert picture.shape == (30, 40, 3)
    assert (picture[:, :20] == 100).all()
    tint = class_colours(2)[1].astype(float)
    assert (picture[:, 20:] == np.rint(200 + MASK_OPACITY * (tint - 200))).all()


def test_preview_of_a_large_image_is_2048_px_and_right_everywhere(
    run: Run, image: Write, bright: Path
) -> None:
    pixels = np.full((1000, 4500, 3), (10, 20, 30), np.uint8)
    pixels[:500, 2250:] = (250, 240, 230)
    done = run(
        image("slide.tif", pixels), "--model", bright, "--channels", "0", "--preview", "p.png"
    )
    assert done.code == 0
    picture = read_png("p.png")
    assert picture.shape == (455, 2048, 3)
    assert (picture[:, :1022] == (10, 20, 30)).all()
    assert (picture[229:] == (10, 20, 30)).all()
    tint = class_colours(2)[1].astype(float)
    tinted = np.rint((250, 240, 230) + MASK_OPACITY * (tint - (250, 240, 230)))
    assert (picture[:226, 1026:] == tinted).all()


@pytest.mark.parametrize("shape", [(7, 11), (64, 48), (63, 100)])
def test_shrinking_block_by_block_is_the_mean_of_each_area(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_PX", 17)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 101, 3), np.uint8)
    found = shrunk_image(open_source(pixels), shape)
    rows, columns = (
        [-(-n * long // short) for n in range(short + 1)]
        for long, short in zip(pixels.shape[:2], shape, strict=True)
    )
    for y in range(shape[0]):
        for x in range(shape[1]):
            area = pixels[rows[y] : rows[y + 1], columns[x] : columns[x + 1]]
            assert np.abs(found[y, x] - area.mean(axis=(0, 1))).max() <= 0.5001


def test_an_image_of_more_than_8_bits_is_stretched() -> None:
    ramp = np.broadcast_to(np.linspace(1000, 2000, 101), (50, 101)).astype(np.uint16)
    found = shrunk_image(open_source(ramp), (50, 101))
    assert (found[:, :1] == 0).all()
    assert (found[:, -1:] == 255).all()
    assert (np.abs(found[:, 50].astype(int) - 127) <= 1).all()


def test_a_constant_image_and_one_with_nan_are_drawn() -> None:
    assert (shrunk_image(open_source(np.full((9, 9), 7, np.uint16)), (9, 9)) == 0).all()
    pixels = np.full((9, 9), 0.5, np.float32)
    pixels[0, 0] = np.nan
    pixels[1] = 0.7
    found = shrunk_image(open_source(pixels), (9, 9))
    assert found[5, 5, 0] < found[1, 5, 0] == 255


def test_pixels_without_data_are_black_and_do_not_count() -> None:
    pixels = np.broadcast_to(np.linspace(100, 200, 20), (20, 20)).astype(np.float32).copy()
    expected = shrunk_image(open_source(pixels), (10, 10))
    pixels[:2] = pixels[5, 5] = -9999
    found = shrunk_image(open_source(pixels), (10, 10), -9999)
    assert (found[0] == 0).all()
    assert np.abs(found[1:].astype(int) - expected[1:]).max() <= 10
    assert (found[2, 2] > 0).all(), "three of its four pixels hold data"
    spoiled = shrunk_image(open_source(pixels), (10, 10))
    assert np.abs(spoiled[1:].astype(int) - expected[1:]).max() > 100
    empty = np.full((9, 9), np.nan, np.float32)
    assert (shrunk_image(open_source(empty), (9, 9)) == 0).all()


def test_channels_are_colours_where_there_are_three_else_grey() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 4), np.uint8)
    assert (shrunk_image(open_source(pixels), (8, 9)) == pixels[..., :3]).all()
    grey = shrunk_image(open_source(pixels[..., :2]), (8, 9))
    assert (grey == pixels[..., :1]).all()


def test_the_image_is_read_from_a_lower_resolution_where_there_is_one(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        file.write(np.zeros((1024, 1024), np.uint8), tile=(256, 256), subifds=2)
        file.write(np.full((512, 512), 50, np.uint8), tile=(256, 256), subfiletype=1)
        file.write(np.full((256, 256), 99, np.uint8), tile=(256, 256), subfiletype=1)
    source = open_source(tmp_path / "pyramid.tif")
    try:
        assert (shrunk_image(source, (300, 300)) == 50).all()
        assert (shrunk_image(source, (256, 256)) == 99).all()
        assert (shrunk_image(source, (600, 600)) == 0).all()
    finally:
        source.close()


def test_the_mask_is_taken_from_its_smallest_level_that_is_large_enough() -> None:
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    for level, side in enumerate((64, 32, 16)):
        array = group.create_array(str(level), shape=(side, side), dtype="uint8")
        array[:] = level
    group.create_array("probabilities", shape=(2, 64, 64), dtype="float16")
    assert (shrunk_mask(group, (20, 20)) == 1).all()
    assert (shrunk_mask(group, (16, 16)) == 2).all()
    assert (shrunk_mask(group, (33, 8)) == 0).all()


def test_labels_keep_their_place_when_shrunk() -> None:
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    group.create_array("0", data=labels)
    assert (shrunk_mask(group, (3, 4)) == labels).all()
    assert shrunk_mask(group, (1, 2)).tolist() == [[5, 7]]


def test_each_class_has_a_colour_of_its_own_up_to_seven() -> None:
    assert len({tuple(colour) for colour in class_colours(8).tolist()}) == 8
    labels = np.arange(20, dtype=np.uint8)[None]
    picture = overlay(np.zeros((1, 20, 3), np.uint8), labels, class_colours(20))
    assert (picture[0, 0] == 0).all()
    assert picture[0, 1:].any(axis=1).all()


@pytest.mark.parametrize(("dtype", "not_computed"), [("uint8", 255), ("uint16", 65535)])
def test_what_was_not_computed_is_not_tinted(dtype: str, not_computed: int) -> None:
    labels = np.array([[0, 1, not_computed]], dtype)
    image = np.full((1, 3, 3), 100, np.uint8)
    picture = overlay(image, labels, class_colours(2))
    assert (picture == 100).all(axis=2).tolist() == [[True, False, True]]


def test_a_mask_coarser_than_the_picture_is_repeated() -> None:
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    group.create_array("0", data=labels)
    group.create_array("1", data=labels[:2, :2])
    assert (shrunk_mask(group, (6, 8)) == labels.repeat(2, axis=0).repeat(2, axis=1)).all()


def test_a_mask_finer_than_the_picture_is_thinned() -> None:
    group = zarr.open_group(zarr.storage.MemoryStore(), mode="w")
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4).repeat(2, axis=0).repeat(2, axis=1)
    group.create_array("0", data=labels)
    assert (shrunk_mask(group, (3, 4)) == labels[::2, ::2]).all()


@pytest.mark.parametrize(("high", "expected"), [(1, 255), (31, 255), (32, 32), (200, 200)])
def test_dark_8_bit_pixels_are_stretched(high: int, expected: int) -> None:
    pixels = np.zeros((20, 30), np.uint8)
    pixels[:10] = high
    found = shrunk_image(open_source(pixels), (20, 30))
    assert (found[:10] == expected).all()
    assert (found[10:] == 0).all()
