"""Mirroring equals NumPy's `reflect`, which refuses what an image smaller than its margin needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_infer.tiler.box import Box, Interval
from tile_infer.tiler.mirror import extend, mirror_index, mirrored_region


@given(length=st.integers(1, 40), before=st.integers(0, 200), after=st.integers(0, 200))
def test_the_index_is_numpys_reflect(length: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(length), (before, after), mode="reflect" if length > 1 else "edge")
    assert mirror_index(Interval(-before, length + after), length).tolist() == expected.tolist()


def test_the_edge_pixel_is_not_repeated() -> None:
    assert mirror_index(Interval(-2, 0), 9).tolist() == [2, 1]
    symmetric = np.pad(np.arange(9), (2, 0), mode="symmetric")[:2]
    assert symmetric.tolist() != [2, 1]


@given(
    length=st.integers(1, 60),
    start=st.integers(-150, 150),
    size=st.integers(1, 150),
)
def test_the_region_is_the_smallest_that_holds_every_pixel_needed(
    length: int, start: int, size: int
) -> None:
    span = Interval(start, start + size)
    index = mirror_index(span, length)
    assert mirrored_region(span, length) == Interval(int(index.min()), int(index.max()) + 1)


@given(data=st.data(), height=st.integers(1, 30), width=st.integers(1, 30))
def test_a_rectangle_is_filled_from_its_region_alone(
    data: st.DataObject, height: int, width: int
) -> None:
    image = np.arange(height * width * 2).reshape(height, width, 2)
    starts = st.integers(-70, 70)
    sizes = st.integers(1, 70)
    y, x = data.draw(starts), data.draw(starts)
    wanted = Box.of(y, y + data.draw(sizes), x, x + data.draw(sizes))
    region = Box(mirrored_region(wanted.y, height), mirrored_region(wanted.x, width))
    found = extend(image[region.slices], region, wanted, (height, width))
    rows, columns = mirror_index(wanted.y, height), mirror_index(wanted.x, width)
    np.testing.assert_array_equal(found, image[rows][:, columns])


def test_nothing_is_copied_inside_the_image() -> None:
    image = np.zeros((50, 50, 1))
    box = Box.of(10, 20, 10, 20)
    pixels = image[box.slices]
    assert extend(pixels, box, box, (50, 50)) is pixels


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_image_smaller_than_the_margin_is_mirrored_repeatedly(length: int) -> None:
    index = mirror_index(Interval(-92, length + 92), length)
    assert index[92 : 92 + length].tolist() == list(range(length))
    assert np.abs(np.diff(index)).max() <= 1
    assert set(index.tolist()) == set(range(length))
