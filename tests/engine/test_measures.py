import math

import numpy as np
import pytest

from tile_infer.engine.measures import Counts, confusion_of, counts_of, pixel_error


def test_measures_by_hand() -> None:
    counts = Counts(60, 20, 15, 105)
    assert counts.dice == counts.f(1) == pytest.approx(120 / 155)
    assert counts.iou == pytest.approx(60 / 95)
    assert counts.precision == pytest.approx(0.75)
    assert counts.sensitivity == pytest.approx(0.8)
    assert counts.specificity == pytest.approx(105 / 125)
    assert counts.f(2) == pytest.approx(5 * 0.75 * 0.8 / (4 * 0.75 + 0.8))


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    empty = Counts(0, 0, 0, 9)
    assert (empty.dice, empty.iou, empty.specificity) == (1, 1, 1)
    assert math.isnan(empty.sensitivity)
    assert math.isnan(empty.precision)
    assert Counts(0, 1, 0, 8).dice == 0
    assert math.isnan(Counts(9, 0, 0, 0).specificity)


def test_counts_of_a_class_are_those_of_a_loop() -> None:
    random = np.random.default_rng(0)
    found, true = random.integers(0, 3, (2, 50))
    confusion = confusion_of(found, true, 3)
    for label in range(3):
        f, t = found == label, true == label
        expected = Counts(
            int((f & t).sum()), int((f & ~t).sum()), int((~f & t).sum()), int((~f & ~t).sum())
        )
        assert counts_of(confusion, label) == expected
    assert pixel_error(confusion) == pytest.approx((found != true).mean())
    assert math.isnan(pixel_error(0 * confusion))


def test_counts_of_two_images_together() -> None:
    assert Counts(1, 2, 3, 4) + Counts(10, 20, 30, 40) == Counts(11, 22, 33, 44)
