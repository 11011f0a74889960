from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tile_infer import predict_large
from tile_infer.engine import augmentation, constant_tiles, ready
from tile_infer.engine.backends.base import Output
from tile_infer.engine.constant_tiles import KEPT, RememberingRunner, colour_of
from tile_infer.engine.networks.unet import UNet


class Counting:
    """Answers with the number of its call, so that a second answer is seen."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        self.calls += 1
        return Output(np.full(tiles.shape[:3], self.calls, np.uint8), None)


def tiles(value: Any, count: int = 1, dtype: str = "uint8") -> NDArray[Any]:
    return np.full((count, 70, 90, 3), value, dtype)


def test_a_colour_is_run_once() -> None:
    network = Counting()
    run = RememberingRunner(network)
    first = run(tiles((250, 240, 245)))
    again = run(tiles((250, 240, 245)))
    assert again.labels is first.labels
    assert (network.calls, run.remembered) == (1, 1)
    run(tiles((250, 240, 244)))
    assert network.calls == 2


@pytest.mark.parametrize("place", [(0, 0, 0, 1), (0, 69, 89, 2), (0, 33, 57, 0)])
def test_one_other_value_is_enough_to_run(place: tuple[int, ...]) -> None:
    network = Counting()
    run = RememberingRunner(network)
    run(tiles(7))
    other = tiles(7)
    other[place] = 8
    run(other)
    run(other)
    assert (network.calls, run.remembered) == (3, 0)


def test_a_batch_is_not_taken_for_a_tile() -> None:
    network = Counting()
    run = RememberingRunner(network)
    run(tiles(7))
    run(tiles(7, count=2))
    assert network.calls == 2
    mixed = np.concatenate([tiles(7), tiles(8)])
    run(mixed)
    run(mixed)
    assert network.calls == 4


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint32", "float16", "float64"])
def test_bits_are_compared(dtype: str) -> None:
    assert colour_of(tiles(1, dtype=dtype)) == np.full(3, 1, dtype).tobytes()
    if dtype.startswith("float"):
        assert colour_of(tiles(0.0, dtype=dtype)) != colour_of(tiles(-0.0, dtype=dtype))
        assert colour_of(tiles(np.nan, dtype=dtype)) is not None


def test_few_colours_are_kept() -> None:
    network = Counting()
    run = RememberingRunner(network)
    for value in range(KEPT + 1):
        run(tiles(value))
    run(tiles(KEPT))
    assert network.calls == KEPT + 1
    run(tiles(0))
    assert network.calls == KEPT + 2


def test_a_slide_with_empty_places_is_segmented_alike_with_fewer_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    network = UNet(1, 3, width=2, depth=2).eval()
    slide = np.random.default_rng(0).integers(0, 255, (700, 900), np.uint8)
    slide[:, 250:] = 240

    def segmented() -> tuple[NDArray[Any], int]:
        counted: list[int] = []

        def counting(network: Any, plan: Any) -> Any:
            run = augmentation.prepare(network, plan)

            def call(tiles: NDArray[np.generic]) -> Output:
                counted.append(len(tiles))
                return run(tiles)

            return call

        monkeypatch.setattr(ready, "prepare", counting)
        found = predict_large(slide, network, tile=(140, 140), workers=1)
        return np.asarray(found), sum(counted)

    mask, runs = segmented()
    monkeypatch.setattr(constant_tiles, "colour_of", lambda _: None)
    expected, all_runs = segmented()
    np.testing.assert_array_equal(mask, expected)
    assert 0 < runs < all_runs / 2
