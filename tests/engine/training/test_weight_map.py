import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.training.objects import truth_of
from tile_infer.engine.training.weight_map import WeightMap, separation
from tile_infer.tiler.errors import SettingError


def discs(count: int, side: int, radius: float, seed: int) -> NDArray[np.int32]:
    """Return discs that may touch, the later ones on top."""
    random = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    rows, columns = np.mgrid[:side, :side]
    for number in range(1, count + 1):
        y, x = random.uniform(0, side, 2)
        reach = int(radius) + 2
        part = (
            slice(max(0, int(y) - reach), int(y) + reach + 1),
            slice(max(0, int(x) - reach), int(x) + reach + 1),
        )
        labels[part][np.hypot(rows[part] - y, columns[part] - x) <= radius] = number
    return truth_of(labels, "instance").objects


def brute_force(
    objects: NDArray[np.int32], class_weights: tuple[float, float], w0: float, sigma: float
) -> NDArray[np.float64]:
    """The paper's formula, every pixel against every pixel of every object."""
    weights = np.empty(objects.shape)
    places = [np.argwhere(objects == number) for number in np.unique(objects[objects > 0])]
    for pixel in np.ndindex(objects.shape):
        d = sorted(float(np.hypot(*(place - pixel).T).min()) for place in places)
        gap = w0 * np.exp(-((d[0] + d[1]) ** 2) / (2 * sigma**2)) if len(d) > 1 else 0.0
        weights[pixel] = class_weights[int(objects[pixel] > 0)] + gap
    return weights


@pytest.mark.parametrize(
    ("count", "radius", "w0", "sigma"),
    [(12, 5, 10, 5), (30, 3, 10, 5), (6, 7, 4, 2), (1, 5, 10, 5)],
)
def test_the_map_equals_brute_force(count: int, radius: float, w0: float, sigma: float) -> None:
    objects = discs(count, 48, radius, seed=count)
    classes = (objects > 0).astype(np.uint8)
    expected = brute_force(objects, (0.7, 1.9), w0, sigma)
    found = WeightMap(w0, sigma).of(classes, objects, (0.7, 1.9))
    assert np.abs(found - expected).max() < 1e-5
    wrong = WeightMap(w0, sigma * 1.1).of(classes, objects, (0.7, 1.9))
    assert (np.abs(wrong - expected).max() > 0.01) == (count > 1)


def test_the_third_nearest_object_does_not_count() -> None:
    two = np.zeros((9, 21), np.int32)
    two[4, 2], two[4, 6] = 1, 2
    three = two.copy()
    three[4, 18] = 3
    near = np.s_[:, :8]
    assert np.array_equal(separation(two, 3)[near], separation(three, 3)[near])


def test_a_gap_between_touching_objects_weighs_most() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 5:20], labels[10:30, 20:34] = 1, 2
    truth = truth_of(labels, "instance")
    found = WeightMap().of(truth.classes, truth.objects, (1.0, 1.0))
    assert found[20, 19] == pytest.approx(1 + 10 * np.exp(-4 / 50))
    assert found[20, 0] < 1.1
    outside_only = WeightMap(inside=False).of(truth.classes, truth.objects, (1.0, 1.0))
    assert np.array_equal(outside_only[truth.objects == 0], found[truth.objects == 0])
    assert np.all(outside_only[truth.objects > 0] == 1)
    assert found[20, 20] > 9


def test_no_gap_weight_without_a_second_object() -> None:
    objects = np.zeros((30, 30), np.int32)
    assert separation(objects, 5).max() == 0
    objects[5:9, 5:9] = 1
    assert separation(objects, 5).max() == 0


def test_classes_have_an_equal_say_or_as_much_as_asked() -> None:
    counts = (900, 90, 10)
    full = WeightMap(balance=1).class_weights(counts)
    assert np.allclose(np.multiply(full, counts), 1000 / 3)
    half = WeightMap(balance=0.5).class_weights(counts)
    assert half[2] / half[1] == pytest.approx(3)
    assert np.dot(half, counts) == pytest.approx(1000)
    assert WeightMap(balance=0).class_weights(counts) == pytest.approx((1, 1, 1))


def test_a_thousand_objects_need_little_more_memory_than_the_map() -> None:
    objects = discs(1000, 1024, 9, seed=0)
    assert len(np.unique(objects)) > 900
    tracemalloc.start()
    found = separation(objects, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * found.nbytes, peak


@pytest.mark.parametrize(
    "wrong", [{"w0": -1.0}, {"sigma_px": 0.0}, {"sigma_px": float("nan")}, {"balance": 2.0}]
)
def test_impossible_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="weight map needs"):
        WeightMap(**wrong)  # type: ignore[arg-type]
