"""A network that says one everywhere, blended, is one everywhere, up to the border."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import tile_infer.engine.block as block_module
from tile_infer import Plan, SettingError, plan_prediction, predict_large
from tile_infer.engine.backends.base import Output
from tile_infer.engine.block import Worker
from tile_infer.engine.sources import open_source
from tile_infer.tiler.window import WINDOWS

from .run_plan import small_blocks
from .seeded_networks import textured


def blended(plan: Plan, image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the sum over all tiles, in single precision, where each tile is one everywhere."""
    # Stored probabilities are float16, which would round a small error away.
    plan = replace(plan, settings=replace(plan.settings, output="logits"))

    def ones(tiles: NDArray[np.generic]) -> Output:
        return Output(
            None, np.ones((len(tiles), plan.recipe.classes, *plan.grid.window), np.float32)
        )

    total = np.full((plan.recipe.classes, *plan.shape), np.nan, np.float32)
    with closing(open_source(image)) as source, ThreadPoolExecutor(1) as device:
        worker = Worker(plan, source, ones, None, device)
        for block in range(plan.grid.blocks):
            box = plan.grid.block_box(block)
            pixels, *_ = block_module.read_box(worker, box)
            scores = block_module._blend(worker, box, pixels, "float32")[1]
            assert scores is not None
            assert scores.dtype == np.float32
            total[(slice(None), *box.slices)] = scores
    return total


@pytest.mark.parametrize("kind", ["hann", "gaussian"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 2 / 3, 0.9])
@pytest.mark.parametrize(("shape", "margin"), [((1, 1), 0), ((7, 300), 1), ((130, 97), 0)])
def test_ones_stay_one(kind: Any, overlap: float, shape: tuple[int, int], margin: int) -> None:
    image = textured(*shape)[:, :, 0]
    network = nn.Conv2d(1, 2, 3, padding=1 - margin)
    plan = plan_prediction(image, network, blend=kind, overlap=overlap, tile=(64, 48))
    if overlap == 0:
        assert plan.blend is None  # nothing overlaps, so nothing is added up
        return
    for blocks in (plan, small_blocks(plan, 2)):
        total = blended(blocks, image)
        assert np.abs(total - 1).max() <= 1e-6


def test_a_window_that_is_no_partition_of_unity_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    image = textured(130, 97)[:, :, 0]
    plan = plan_prediction(image, nn.Conv2d(1, 2, 3), blend="gaussian", tile=(64, 48))
    monkeypatch.setattr(
        block_module, "partition_of_unity", lambda kind, size, step: WINDOWS[kind](size)
    )
    assert np.abs(blended(plan, image) - 1).max() > 0.01


class Scaled(nn.Module):
    """Makes differences large, so that a map in the wrong place shows."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels * 8


@pytest.mark.parametrize("kind", ["hann", "gaussian"])
def test_blended_probabilities_of_a_bounded_network_are_near_the_exact_ones(kind: Any) -> None:
    image = textured(150, 210)[:, :, 0]
    torch.manual_seed(0)
    network = nn.Sequential(Scaled(), nn.Conv2d(1, 3, 5, padding=2), nn.Tanh(), Scaled())
    exact = predict_large(image, network, output="probabilities", activation="softmax")
    mixed = predict_large(
        image, network, output="probabilities", blend=kind, tile=(64, 48), activation="softmax"
    )
    assert exact.probabilities is not None
    assert mixed.probabilities is not None
    found = np.asarray(mixed.probabilities, np.float32)
    assert np.abs(found.sum(axis=0) - 1).max() < 2e-3  # float16
    whole = np.asarray(exact.probabilities, np.float32)
    error = np.abs(found - whole).mean()
    shifted = np.abs(np.roll(found, 7, axis=2) - whole).mean()
    assert error < shifted / 2


def test_without_a_window_a_valid_network_is_exact_all_the_same() -> None:
    image = textured(150, 210)[:, :, 0]
    network = nn.Conv2d(1, 3, 5)
    exact = predict_large(image, network)
    middle = predict_large(image, network, blend="none", overlap=0.5, tile=(64, 48))
    assert np.array_equal(exact, middle)


def test_blended_logits_are_refused() -> None:
    with pytest.raises(SettingError, match="output=logits has no meaning"):
        predict_large(np.zeros((9, 9), np.uint8), nn.Conv2d(1, 3, 5), blend="hann", output="logits")
