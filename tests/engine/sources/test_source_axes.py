import numpy as np
import pytest

from tile_infer.engine.sources.axes import guessed_axes, named_axes
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError


@pytest.mark.parametrize(
    ("shape", "letters"),
    [
        ((1, 1), "YX"),
        ((7, 9), "YX"),
        ((3, 7, 9), "CYX"),
        ((7, 9, 4), "YXC"),
        ((1, 7, 9), "CYX"),
        ((7, 9, 1), "YXC"),
        ((1, 1, 3, 7, 9), "..CYX"),
        ((1, 7, 9, 3), ".YXC"),
    ],
)
def test_lengths_tell_the_channel_axis(shape: tuple[int, ...], letters: str) -> None:
    assert guessed_axes(shape, "array").letters == letters


@pytest.mark.parametrize(
    "shape", [(5, 7, 9), (3, 7, 4), (3, 9, 3), (4, 4, 4), (9,), (), (2, 3, 7, 9), (3, 7, 9, 1)]
)
def test_lengths_that_do_not_tell_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="unnamed array"):
        guessed_axes(shape, "array")


def test_empty_image_is_refused() -> None:
    with pytest.raises(ImageError, match="needs pixels"):
        guessed_axes((0, 9), "array")


def test_named_axes_are_reordered_and_those_of_length_1_dropped() -> None:
    order = named_axes(["t", "x", "Channel", "z", "y"], (1, 9, 2, 1, 7), "array")
    assert order.axes == "XCY"
    assert order.size == (7, 9)
    pixels = np.arange(126).reshape(1, 9, 2, 1, 7)
    box = Box.of(2, 5, 1, 9)
    got = order.to_yxc(pixels[order.index(box, slice(None))], pixels.dtype)
    np.testing.assert_array_equal(got, pixels[0, 1:9, :, 0, 2:5].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (["t", "y", "x"], (2, 7, 9)),
        (["y", "y"], (7, 9)),
        (["c", "y"], (3, 7)),
        (["c", "s", "y", "x"], (2, 2, 7, 9)),
        (["y", "x"], (3, 7, 9)),
    ],
)
def test_names_that_are_no_image_are_refused(names: list[str], shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="ax"):
        named_axes(names, shape, "array")
