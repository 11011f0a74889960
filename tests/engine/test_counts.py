"""How often a run does its work: counts that follow from the sizes alone, on any machine."""

from collections.abc import Iterable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from tile_infer import Prediction, plan_prediction, predict_large
from tile_infer.engine import planning, strips
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.unet import UNet
from tile_infer.engine.strips import Strips

from .test_work import unet_layers

HEIGHT, WIDTH = 2200, 5300
SEGMENT = 128
KERNEL, TILE = 9, 258
CORE = TILE - (KERNEL - 1)
CHUNK = 1024 // CORE * CORE
"""Whole cores, as near to 1024 px as they come."""
ROWS, COLUMNS = ceil(HEIGHT / SEGMENT), ceil(WIDTH / SEGMENT)
SEGMENT_BYTES = SEGMENT * SEGMENT * 3
PAPER, PAPER_OUT, PERIOD = 572, 388, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide no two tiles of which are alike, and two networks."""
    found = tmp_path_factory.mktemp("counts")
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    tifffile.imwrite(
        found / "slide.tif",
        pixels,
        tile=(SEGMENT, SEGMENT),
        photometric="rgb",
        compression="jpeg",
    )
    tifffile.imwrite(
        found / "strips.tif", pixels, rowsperstrip=16, photometric="rgb", compression="zlib"
    )
    torch.manual_seed(0)
    export_onnx(nn.Conv2d(3, 2, KERNEL), found / "net.onnx", in_channels=3)
    return found


def run(folder: Path, out: Path, image: str = "slide.tif", **options: Any) -> Prediction:
    settings = {"workers": 1, "tile": (TILE, TILE), **options}
    return predict_large(folder / image, folder / "net.onnx", out, backend="onnx", **settings)


def levels(shape: tuple[int, int]) -> Iterable[tuple[int, int]]:
    """Yield the mask's size and its halves, down to one of 1024 px at most."""
    while True:
        yield shape
        if max(shape) <= 1024:
            return
        shape = ceil(shape[0] / 2), ceil(shape[1] / 2)


def all_run(tiles: int) -> dict[str, Any]:
    """Return what is counted of tiles none of which is remembered, on a CPU."""
    return {
        "tiles_run": tiles,
        "tiles_remembered": 0,
        "devices": [{"device": "cpu", "tiles": tiles, "most_at_once": None}],
    }


@pytest.mark.parametrize("workers", [1, 3])
def test_everything_is_done_once(folder: Path, tmp_path: Path, workers: int) -> None:
    found = run(folder, tmp_path / "m.zarr", workers=workers)
    assert found.report["counts"] == {
        **all_run(ceil(HEIGHT / CORE) * ceil(WIDTH / CORE)),
        "segments_decoded": ROWS * COLUMNS,
        "chunks_written": sum(
            ceil(height / CHUNK) * ceil(width / CHUNK) for height, width in levels((HEIGHT, WIDTH))
        ),
    }
    assert found.plan.grid.blocks > 4, "else nothing is shared"


def test_a_smaller_stride_runs_more_tiles(folder: Path, tmp_path: Path) -> None:
    found = run(folder, tmp_path / "m.zarr", tile=(TILE - 50, TILE - 50))
    tiles = found.report["counts"]["tiles_run"]
    assert tiles == ceil(HEIGHT / (CORE - 50)) * ceil(WIDTH / (CORE - 50))
    assert tiles > ceil(HEIGHT / CORE) * ceil(WIDTH / CORE)


def test_what_a_block_lacks_is_done_again_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    grid = run(folder, tmp_path / "m.zarr").plan.grid
    lost = tmp_path / "m.zarr" / "0" / "c" / "0" / "0"
    lost.unlink()
    height, width = grid.block
    margin = (KERNEL - 1) // 2
    assert run(folder, tmp_path / "m.zarr").report["counts"] == {
        **all_run((height // CORE) * (width // CORE)),
        "segments_decoded": ceil((height + margin) / SEGMENT) * ceil((width + margin) / SEGMENT),
        # The lowest levels were made after the last block, and are still there.
        "chunks_written": sum(
            (height // CHUNK >> level) * (width // CHUNK >> level)
            for level in range((height // CHUNK).bit_length())
        ),
    }


def twice(blocks: Iterable[int], block_px: int) -> int:
    """Return how many columns of segments lie on both sides of the right edge of some blocks."""
    margin = (KERNEL - 1) // 2
    edges = [(block + 1) * block_px for block in blocks]
    return sum((edge + margin - 1) // SEGMENT - (edge - margin) // SEGMENT + 1 for edge in edges)


def test_an_image_wider_than_the_memory_is_decoded_once_but_for_some_edges_of_strips(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "CACHE_BYTES", 70 * SEGMENT_BYTES)
    found = run(folder, tmp_path / "m.zarr")
    columns, blocks = found.plan.strips.columns, found.plan.grid.x.blocks
    assert 1 <= columns < blocks
    edges = range(columns - 1, blocks - 1, columns)
    decoded = found.report["counts"]["segments_decoded"]
    most = ROWS * (COLUMNS + twice(edges, found.plan.grid.block[1]))
    assert ROWS * COLUMNS <= decoded <= most


def test_a_memory_that_is_too_small_decodes_more(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "choose_strips", lambda grid, *_: Strips(grid.x.blocks, 1))
    found = run(folder, tmp_path / "m.zarr")
    assert found.report["counts"]["segments_decoded"] > ROWS * COLUMNS


def test_strips_of_a_file_are_decoded_once_and_the_plan_says_what_that_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = run(folder, tmp_path / "m.zarr", "strips.tif")
    assert usual.report["counts"]["segments_decoded"] == ceil(HEIGHT / 16)
    monkeypatch.setattr(strips, "CACHE_BYTES", 1 << 20)
    tight = run(folder, tmp_path / "n.zarr", "strips.tif")
    assert tight.report["counts"]["segments_decoded"] == ceil(HEIGHT / 16)
    assert tight.plan.strips.kept_bytes > 1 << 20


@pytest.mark.parametrize("side", [388, 2004, 3828, 3844])
def test_the_papers_network_repeats_no_more_than_its_phase_demands(side: int) -> None:
    image = np.broadcast_to(np.uint8(0), (side, side))
    found = plan_prediction(image, UNet(width=4), tile=(PAPER, PAPER))

    def work(size: int) -> int:
        return sum(layer.multiply_adds for layer in unet_layers(size, 4))

    strides = range(PERIOD, PAPER_OUT + 1, PERIOD)
    fewest = min(ceil(side / stride) ** 2 for stride in strides)
    assert found.grid.tiles == fewest
    lost = PAPER - PAPER_OUT
    assert found.redundancy == pytest.approx(fewest * work(PAPER) / work(side + lost), rel=1e-6)
    # At any phase, fewer would do.
    assert (fewest == ceil(side / PAPER_OUT) ** 2) == (side in (2004, 3828))
