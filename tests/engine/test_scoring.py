from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from scipy import ndimage

from tile_infer.engine import components, scoring
from tile_infer.engine.measures import Counts
from tile_infer.engine.scoring import score_mask
from tile_infer.tiler.errors import ImageError, SettingError

Labels = NDArray[np.integer[Any]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_BLOCK_PX", 16)


def stored(path: Path, labels: Labels, chunk: tuple[int, int] = (16, 16)) -> Path:
    array = zarr.create_array(
        path, shape=labels.shape, chunks=chunk, dtype=labels.dtype, overwrite=True
    )
    array[:] = labels
    return path


def maze(seed: int, classes: int = 1) -> NDArray[np.uint8]:
    """Smooth noise above a threshold: objects of every size, many across blocks."""
    random = np.random.default_rng(seed)
    labels = np.zeros((70, 90), np.uint8)
    for label in range(1, classes + 1):
        labels[ndimage.gaussian_filter(random.normal(size=labels.shape), 2) > 0.06] = label
    return labels


def slightly_other(labels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Move the labels by a pixel and drop a part."""
    moved = np.roll(labels, 1, 1)
    moved[seed * 10 : seed * 10 + 9] = 0
    return moved


def objects_of(labels: Labels) -> list[tuple[int, set[tuple[int, ...]]]]:
    found = []
    for label in np.unique(labels[labels > 0]):
        parts, count = ndimage.label(labels == label)
        found += [
            (int(label), set(map(tuple, np.argwhere(parts == part).tolist())))
            for part in range(1, count + 1)
        ]
    return found


def matched_by_loop(
    found: list[tuple[int, set[tuple[int, ...]]]],
    true: list[tuple[int, set[tuple[int, ...]]]],
    min_size: int,
    iou: float,
) -> dict[int, Counts]:
    found = [each for each in found if len(each[1]) >= min_size]
    true = [each for each in true if len(each[1]) >= min_size]
    result = {}
    for label in {label for label, _ in found + true}:
        ours = [pixels for other, pixels in found if other == label]
        theirs = [pixels for other, pixels in true if other == label]
        both = sum(len(one & other) > iou * len(one | other) for one in ours for other in theirs)
        result[label] = Counts(both, len(ours) - both, len(theirs) - both)
    return result


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("classes", "min_size", "iou"), [(1, 1, 0.5), (1, 12, 0.7), (3, 3, 0.5)])
def test_objects_across_blocks_are_those_of_the_whole(
    tmp_path: Path, seed: int, classes: int, min_size: int, iou: float
) -> None:
    truth = maze(seed, classes)
    mask = slightly_other(truth, seed)
    stored(tmp_path / "mask.zarr", mask)
    stored(tmp_path / "truth.zarr", truth, (70, 90))
    found = score_mask(
        tmp_path / "mask.zarr", tmp_path / "truth.zarr", kind="class", min_size=min_size, iou=iou
    )
    expected = matched_by_loop(objects_of(mask), objects_of(truth), min_size, iou)
    assert found.objects == expected
    assert sum(counts.true_positives for counts in expected.values()) > 0
    assert sum(counts.false_negatives for counts in expected.values()) > 0
    assert found.confusion.sum() == truth.size
    assert found.pixel_error == pytest.approx((mask != truth).mean())


def test_objects_that_are_not_joined_across_blocks_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = maze(0)
    stored(tmp_path / "truth.zarr", truth)
    monkeypatch.setattr(components.Components, "_join", lambda *_: None)
    found = score_mask(tmp_path / "truth.zarr", tmp_path / "truth.zarr")
    assert found.objects is not None
    assert found.objects[1].true_positives > len(objects_of(truth))


def test_a_spiral_over_many_blocks_is_one_object(tmp_path: Path) -> None:
    labels = np.zeros((65, 65), np.uint8)
    y = x = 0
    labels[0, 0] = 1
    for turn, length in enumerate([64, 64, 64, *np.repeat(np.arange(62, 0, -2), 2)]):
        dy, dx = [(0, 1), (1, 0), (0, -1), (-1, 0)][turn % 4]
        for _ in range(int(length)):
            y, x = y + dy, x + dx
            labels[y, x] = 1
    assert ndimage.label(labels)[1] == 1
    stored(tmp_path / "a.zarr", labels)
    found = score_mask(tmp_path / "a.zarr", tmp_path / "a.zarr")
    assert found.objects == {1: Counts(1, 0, 0)}


def test_true_objects_may_touch_where_they_have_numbers(tmp_path: Path) -> None:
    truth = np.zeros((40, 60), np.uint16)
    truth[4:20, 4:30], truth[4:20, 30:50], truth[25:35, 10:20] = 300, 7, 65_000
    mask = (truth > 0).astype(np.uint8) * 255
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    stored(tmp_path / "merged.zarr", mask)
    merged = score_mask(tmp_path / "merged.zarr", tmp_path / "truth.tif", kind="instance")
    # The merged pair covers 16 x 46 px, of which the larger is 16 x 26: IoU 0.57.
    assert merged.objects == {1: Counts(2, 0, 1)}
    assert merged.of(1).dice == 1
    mask[:, 29] = 0
    stored(tmp_path / "parted.zarr", mask)
    parted = score_mask(tmp_path / "parted.zarr", tmp_path / "truth.tif", kind="instance")
    assert parted.objects == {1: Counts(3, 0, 0)}


def test_pixels_that_were_not_computed_count_nowhere(tmp_path: Path) -> None:
    truth = maze(1)
    mask = truth.copy()
    mask[:, :30] = 255
    group = zarr.open_group(tmp_path / "ours.zarr", mode="w")
    group.attrs["tile_infer"] = {"classes": ["background", "nucleus"], "not_computed": 255}
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [{"type": "scale", "scale": [1, 1]}],
                    }
                ],
            }
        ],
    }
    group.create_array("0", shape=mask.shape, chunks=(16, 16), dtype="uint8")[:] = mask
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    found = score_mask(tmp_path / "ours.zarr", tmp_path / "truth.tif")
    assert found.class_names == ("background", "nucleus")
    assert found.left_out == 30 * 70
    assert found.confusion.sum() == truth.size - found.left_out
    assert found.pixel_error == 0
    assert found.objects is not None
    assert found.objects[1].dice == 1
    level = score_mask(tmp_path / "ours.zarr" / "0", tmp_path / "truth.tif")
    assert (level.class_names, level.left_out) == (found.class_names, found.left_out)


def test_the_nodata_value_of_a_mask_counts_nowhere(tmp_path: Path) -> None:
    truth = maze(1)
    mask = truth.copy()
    mask[:, :30] = 255
    for name, tags in (("said", [(42113, "s", 0, "255", True)]), ("unsaid", [])):
        tifffile.imwrite(tmp_path / f"{name}.tif", mask, extratags=tags)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    said, unsaid = (
        score_mask(tmp_path / f"{name}.tif", tmp_path / "truth.tif", kind="class")
        for name in ("said", "unsaid")
    )
    assert (said.left_out, said.pixel_error) == (30 * 70, 0)
    assert (unsaid.left_out, unsaid.labels) == (0, (1, 255))


def test_classes_that_nobody_names_or_shows_are_not_listed(tmp_path: Path) -> None:
    truth, mask = maze(1) * np.uint8(200), maze(1, 3)
    mask[mask == 2] = 0
    stored(tmp_path / "mask.zarr", mask)
    stored(tmp_path / "truth.zarr", truth)
    found = score_mask(tmp_path / "mask.zarr", tmp_path / "truth.zarr", kind="class")
    assert found.labels == (1, 3, 200)
    assert found.class_names[200] == "class 200"
    nothing = stored(tmp_path / "nothing.zarr", np.zeros_like(mask))
    assert score_mask(nothing, nothing).labels == (1,)


def test_memory_does_not_grow_with_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    def peak(side: int, block: int) -> int:
        monkeypatch.setattr(scoring, "_BLOCK_PX", block)
        labels = np.zeros((side, side), np.uint8)
        labels[5:9, 5:9] = 1
        path = stored(tmp_path / f"{side}_{block}.zarr", labels, (256, 256))
        tracemalloc.start()
        score_mask(path, path)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(512, 256)  # what is imported and cached once
    small, large = peak(512, 256), peak(4096, 256)
    assert large - small < 4096**2, "a whole image of numbers is 8 times as large"
    assert peak(2048, 2048) - small > 2048**2, "in one block it is"


@pytest.mark.parametrize(
    ("value", "kind", "expected"), [(1, "auto", 1.0), (255, "auto", 1.0), (9, "binary", 1.0)]
)
def test_any_number_stands_for_the_one_class(
    tmp_path: Path, value: int, kind: Any, expected: float
) -> None:
    labels = maze(2)
    mask = stored(tmp_path / "mask.zarr", labels)
    truth = stored(tmp_path / "truth.zarr", labels * np.uint8(value))
    assert score_mask(mask, truth, kind=kind).of(1).dice == expected


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    one = stored(tmp_path / "one.zarr", maze(0))
    cut = stored(tmp_path / "cut.zarr", maze(0)[:50])
    with pytest.raises(ImageError, match=r"70 x 90 px and .* 50 x 90; score"):
        score_mask(one, cut)
    many = stored(tmp_path / "many.zarr", np.arange(70 * 90).reshape(70, 90))
    with pytest.raises(SettingError, match="use truth=instance"):
        score_mask(one, many)
    few = stored(tmp_path / "few.zarr", maze(0, classes=3))
    with pytest.raises(
        SettingError, match=r"has 3 labels beside 0, and .* one; give the mask first"
    ):
        score_mask(few, one)
    assert score_mask(few, one, kind="binary").pixel_error < 1
    with pytest.raises(SettingError, match="classes are 0 to 255"):
        score_mask(one, many, kind="class")
    with pytest.raises(SettingError, match=r"iou=0\.4"):
        score_mask(one, one, iou=0.4)
    with pytest.raises(SettingError, match="min_size=0"):
        score_mask(one, one, min_size=0)
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((70, 90), np.float32))
    with pytest.raises(ImageError, match="holds float32"):
        score_mask(one, tmp_path / "float.tif")
