import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.training.augmentation import Augmentation
from tile_infer.engine.training.warp import Warp, displacements


def spline_through(nodes: NDArray[np.float64], at: float) -> float:
    """The cubic B-spline through three values, mirrored at both ends, at a place in [0, 2]."""

    def kernel(t: float) -> float:
        t = abs(t)
        if t < 1:
            return 2 / 3 - t**2 + t**3 / 2
        return (2 - t) ** 3 / 6 if t < 2 else 0.0

    # Mirrored: coefficients c[-1] = c[1] and c[3] = c[1]; the spline meets each node.
    table = np.array([[4, 2, 0], [1, 4, 1], [0, 2, 4]]) / 6
    a, b, c = np.linalg.solve(table, nodes)
    terms = (
        value * kernel(at - place)
        for place, value in zip(range(-2, 5), (c, b, a, b, c, b, a), strict=True)
    )
    return float(sum(terms))


def test_displacements_meet_the_nodes_and_are_a_cubic_spline_between() -> None:
    nodes = np.random.default_rng(0).normal(0, 10, (2, 3, 3))
    found = displacements(nodes, 101)
    assert np.allclose(found[:, ::50, ::50], nodes)
    along = [spline_through(nodes[0, :, 0], at) for at in np.linspace(0, 2, 101)]
    assert np.allclose(found[0, :, 0], along)
    linear = np.interp(np.linspace(0, 2, 101), [0, 1, 2], nodes[0, :, 0])
    assert np.abs(found[0, :, 0] - linear).max() > 0.3


def test_displacements_are_smooth() -> None:
    nodes = np.random.default_rng(1).normal(0, 10, (2, 3, 3))
    found = displacements(nodes, 572)
    steps = np.abs(np.diff(found, axis=1)).max(), np.abs(np.diff(found, axis=2)).max()
    assert max(steps) < 0.5


def test_no_warp_is_the_tile_itself() -> None:
    y, x = Warp().places(5, (102, 52))
    assert y[:, 0].tolist() == [100, 101, 102, 103, 104]
    assert x[0].tolist() == [50, 51, 52, 53, 54]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("size", [6, 7])
def test_quarter_turns_and_flips_are_those_of_numpy(quarters: int, flip: bool, size: int) -> None:
    image = np.arange(size**2).reshape(size, size)
    middle = (size - 1) / 2
    y, x = np.rint(Warp(quarters * np.pi / 2, flip).places(size, (middle, middle))).astype(int)
    expected = np.rot90(image, quarters)
    assert np.array_equal(image[y, x], np.fliplr(expected) if flip else expected)


def test_the_deformation_has_the_deviation_asked_for() -> None:
    augmentation = Augmentation(elastic_px=10)
    drawn = [augmentation.warp(np.random.default_rng(seed)).nodes for seed in range(200)]
    deviation = np.std(np.stack([nodes for nodes in drawn if nodes is not None]))
    assert deviation == pytest.approx(10, rel=0.05)
    assert Augmentation(elastic_px=0).warp(np.random.default_rng(0)).nodes is None
