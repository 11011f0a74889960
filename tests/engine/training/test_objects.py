import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tile_infer.engine.training.objects import touching, truth_of
from tile_infer.tiler.errors import SettingError

EVERY_SIDE_AND_CORNER = np.ones((3, 3))


def crowded(seed: int) -> NDArray[np.int32]:
    """Objects that cover most of the image and touch: the areas nearest to random points."""
    random = np.random.default_rng(seed)
    y, x = random.uniform(0, 60, (2, 25))
    rows, columns = np.mgrid[:60, :60]
    distance = np.hypot(rows[..., None] - y, columns[..., None] - x)
    return np.where(distance.min(-1) < 8, distance.argmin(-1) + 1, 0).astype(np.int32)


@pytest.mark.parametrize("seed", range(3))
def test_objects_that_touch_are_parted(seed: int) -> None:
    labels = crowded(seed)
    touched = ndimage.label(labels > 0, EVERY_SIDE_AND_CORNER)[1]
    truth = truth_of(labels, "instance")
    pieces, parted = ndimage.label(truth.objects > 0, EVERY_SIDE_AND_CORNER)
    assert touched < len(np.unique(labels)) - 1 <= parted
    for piece in range(1, parted + 1):
        assert len(np.unique(truth.objects[pieces == piece])) == 1


@pytest.mark.parametrize("seed", range(3))
def test_the_gap_is_one_pixel_wide(seed: int) -> None:
    labels = crowded(seed)
    lost = touching(labels)
    # Each lost pixel is beside a pixel that another object keeps: nothing is lost twice over.
    for y, x in np.argwhere(lost):
        window = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
        assert ((labels[window] != labels[y, x]) & (labels[window] > 0)).any()
    straight = np.repeat(np.array([[3] * 6 + [5] * 5]), 4, axis=0).astype(np.int32)
    assert touching(straight).sum(axis=1).tolist() == [1] * 4


def test_the_smaller_object_keeps_its_pixels() -> None:
    labels = np.array([[9, 9, 9, 4, 9, 9]])
    assert truth_of(labels, "instance").classes.tolist() == [[1, 1, 0, 1, 0, 1]]


def test_objects_apart_lose_nothing() -> None:
    labels = np.array([[1, 1, 0, 2, 2]])
    assert truth_of(labels, "instance").objects.tolist() == [[1, 1, 0, 2, 2]]


def test_numbers_of_objects_may_have_holes_and_be_large() -> None:
    labels = np.array([[70_000, 0, 3, 0, 2**40]])
    assert truth_of(labels, "instance").objects.tolist() == [[2, 0, 1, 0, 3]]


def test_an_image_without_background_keeps_its_objects() -> None:
    assert truth_of(np.full((3, 3), 8), "instance").objects.tolist() == [[1] * 3] * 3


def test_objects_of_classes_are_connected_by_sides_within_one_class() -> None:
    labels = np.array([[1, 2, 0], [0, 2, 1], [1, 0, 1]])
    truth = truth_of(labels, "class")
    assert truth.classes.tolist() == labels.tolist()
    assert truth.objects.tolist() == [[1, 4, 0], [0, 4, 2], [3, 0, 2]]


@pytest.mark.parametrize(
    ("labels", "kind", "part"),
    [
        (np.array([[0, 300]]), "class", "at most 255; got 300"),
        (np.array([[0, -1]]), "binary", "0 or more; got -1"),
        (np.array([[0.5]]), "binary", "whole numbers"),
        (np.zeros((2, 2, 3), np.uint8), "class", "(2, 2, 3)"),
        (np.array([[1]]), "colour", "none of binary, class, instance"),
    ],
)
def test_labels_that_cannot_be_are_refused(
    labels: NDArray[np.generic], kind: str, part: str
) -> None:
    with pytest.raises(SettingError) as caught:
        truth_of(labels, kind)  # type: ignore[arg-type]
    assert part in str(caught.value)
