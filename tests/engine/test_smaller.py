"""Memory that runs out in mid-run: smaller batches, then smaller tiles, the same mask."""

import re
import warnings
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from zarr.storage import MemoryStore

from tile_infer import OutputError, Plan, Prediction, TileInferWarning, plan_prediction
from tile_infer import predict_large as predict_anew
from tile_infer.engine import augmentation, block, ready, smaller
from tile_infer.engine.backends.base import Network, Output
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.smaller import _smaller, _starts, smaller_plan
from tile_infer.engine.stitcher.changed_blocks import (
    begun_changed,
    changed_blocks,
    open_changed,
    write_changed,
)
from tile_infer.engine.stitcher.mask import Mask
from tile_infer.engine.unread import read_rest
from tile_infer.tiler.axis import exact_grid
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError, OutOfMemoryError
from tile_infer.tiler.geometry import AxisGeometry
from tile_infer.tiler.scale import Scale

IMAGE = np.random.default_rng(0).integers(0, 4, (90, 16384), dtype=np.uint8)
NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"
ROOMY = 1 << 40
TILE = (104, 264)
SMALLER = [(56, 136), (32, 72)]
"""What a tile is run in, where it does not fit, and again."""
PER_BLOCK = 8
"""Tiles of a block."""
BEFORE = 27
"""Tiles that are run before memory runs out."""


def network(padding: int = 0, up: int = 2) -> nn.Module:
    """Return a network with a pooling whose logits are whole numbers, the same in any order."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, padding=padding),
        nn.ReLU(),
        nn.Upsample(scale_factor=up),
        nn.Conv2d(4, 3, 3, padding=padding),
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape))
    return module


def predict_large(*arguments: Any, **options: Any) -> Prediction:
    return predict_anew(*arguments, normalize="none", **{"verify": 0, **options})


class Forgetful(list[Any]):
    """Keeps nothing."""

    def append(self, _: Any) -> None:
        pass


class Memory:
    """A device on which some pixels fit at once, and fewer after some runs."""

    def __init__(self) -> None:
        self.pixels, self.after, self.lock = ROOMY, 0, Lock()
        self.ran: list[tuple[int, ...]] = []
        self.refused: list[tuple[int, ...]] = []
        self.prepared: list[Any] = []
        """What is still there of the runners that were made."""

    def forget(self) -> None:
        for found in (self.ran, self.refused, self.prepared):
            found.clear()

    def prepare(self, network: Network, plan: Plan) -> Any:
        # Nothing of the tiles that did not fit is kept while others are prepared.
        assert [each() for each in self.prepared] == [None] * len(self.prepared)
        run = augmentation.prepare(network, plan)

        def limited(tiles: NDArray[np.generic]) -> Output:
            shape = tiles.shape[:3]
            with self.lock:
                fits = len(self.ran) < self.after or np.prod(shape) <= self.pixels
                (self.ran if fits else self.refused).append(shape)
            if not fits:
                raise RuntimeError(NO_MEMORY)
            return run(tiles)

        self.prepared.append(ref(limited))
        return limited


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    export_onnx(network(), path, in_channels=1)
    return path


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    device = Memory()
    for module in (ready, smaller):
        monkeypatch.setattr(module, "prepare", device.prepare)
    return device


def chunks(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every chunk of the labels."""
    files = (path for path in folder.glob("[0-9]*/c/**/*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def attributes(found: Prediction) -> dict[str, Any]:
    ours: Any = found.group.attrs["tile_infer"]
    return dict(ours)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tile_that_no_longer_fits_is_run_in_smaller_ones(
    model: Path, memory: Memory, tmp_path: Path, workers: int
) -> None:
    options = {"tile": TILE, "workers": workers}
    whole = predict_large(IMAGE, model, tmp_path / "whole.zarr", **options)
    assert whole.report["changed"] == []
    assert "changed" not in attributes(whole)
    assert not (tmp_path / "whole.zarr/tile_infer/changed").exists()
    assert set(np.unique(whole)) == {0, 1, 2}
    assert whole.plan.grid.tiles == PER_BLOCK * whole.plan.grid.blocks
    memory.forget()
    memory.pixels, memory.after = TILE[0] * TILE[1] - 1, BEFORE
    message = "memory of this machine ran out: blocks from now on in tiles of 56 x 136 px instead"
    with pytest.warns(TileInferWarning, match=message):
        found = predict_large(IMAGE, model, tmp_path / "parts.zarr", **options)
    assert chunks(tmp_path / "parts.zarr") == chunks(tmp_path / "whole.zarr")
    assert {shape[1:] for shape in memory.ran[:BEFORE]} == {TILE}
    assert {shape[1:] for shape in memory.ran[BEFORE:]} == {SMALLER[0]}
    assert len(memory.refused) <= workers
    (changed,) = found.report["changed"]
    assert (changed["tile"], changed["batch"]) == ([*SMALLER[0]], 1)
    assert attributes(found)["changed"] == [changed]
    before = found.plan.grid.blocks - len(changed["blocks"])
    assert BEFORE // PER_BLOCK - workers <= before <= BEFORE // PER_BLOCK
    assert found.plan == whole.plan
    counts = found.report["counts"]["chunks_written"], whole.report["counts"]["chunks_written"]
    assert counts[0] == counts[1]


def test_the_batch_is_halved_first(model: Path, memory: Memory, tmp_path: Path) -> None:
    options = {"tile": TILE, "workers": 1, "batch_size": 4}
    whole = predict_large(IMAGE, model, tmp_path / "whole.zarr", **options)
    memory.forget()
    memory.pixels, memory.after = 2 * TILE[0] * TILE[1], 3
    with pytest.warns(TileInferWarning, match="ran 2 tiles at once instead of 4"):
        found = predict_large(IMAGE, model, tmp_path / "halves.zarr", **options)
    assert chunks(tmp_path / "halves.zarr") == chunks(tmp_path / "whole.zarr")
    assert {shape[1:] for shape in memory.ran} == {TILE}
    (changed,) = found.report["changed"]
    assert (changed["tile"], changed["batch"]) == ([*TILE], 2)
    assert 0 < len(changed["blocks"]) < whole.plan.grid.blocks
    assert attributes(found)["changed"] == [changed]
    memory.forget()
    memory.pixels = TILE[0] * TILE[1] - 1
    with pytest.warns(TileInferWarning) as told:
        found = predict_large(IMAGE, model, tmp_path / "parts.zarr", **options)
    assert chunks(tmp_path / "parts.zarr") == chunks(tmp_path / "whole.zarr")
    texts = [str(each.message) for each in told]
    assert ["in tiles of 56 x 136 px" in text for text in texts] == [True, False]
    assert texts[1].endswith("ran 2 tiles at once instead of 4")
    assert memory.refused == [(4, *TILE), (2, *TILE), (1, *TILE), (4, *SMALLER[0])]
    assert set(memory.ran) == {(4, *TILE), (2, *SMALLER[0])}
    (changed,) = found.report["changed"]
    assert (changed["tile"], changed["batch"]) == ([*SMALLER[0]], 2)


@pytest.mark.parametrize(
    ("module", "form", "tta"),
    [
        (network(padding=1), "torch", None),
        (network(up=4), "onnx", None),
        (network(up=1), "onnx", None),
        (network(), "onnx", "flips"),
        (network(padding=1), "onnx", "dihedral"),
    ],
    ids=["same-padded", "twice the size", "half the size", "flips", "dihedral"],
)
def test_every_exact_network_can_shrink_again_and_again(
    memory: Memory, tmp_path: Path, module: nn.Module, form: str, tta: str | None
) -> None:
    image, model = IMAGE[:, :2100], tmp_path / "net.onnx"
    export_onnx(module, model, in_channels=1)
    given: Any = module if form == "torch" else model
    kind: Any = {"output": "probabilities", "workers": 2, "tta": tta}
    whole = predict_large(image, given, tmp_path / "whole.zarr", **kind)
    assert whole.plan.exact
    memory.forget()
    height, width = whole.plan.grid.tile
    memory.pixels = height * width // 6
    with pytest.warns(TileInferWarning, match="blocks from now on"):
        found = predict_large(image, given, tmp_path / "parts.zarr", **kind)
    assert len({shape[1:] for shape in memory.refused}) > 1
    assert chunks(tmp_path / "parts.zarr") == chunks(tmp_path / "whole.zarr")
    one, other = np.asarray(found.probabilities), np.asarray(whole.probabilities)
    np.testing.assert_allclose(one, other, atol=1e-3)
    listed = [block for each in found.report["changed"] for block in each["blocks"]]
    assert sorted(listed) == list(range(found.plan.grid.blocks))


def test_a_mask_in_smaller_tiles_is_verified_in_the_memory_there_is(
    model: Path, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pixels = SMALLER[0][0] * SMALLER[0][1]
    monkeypatch.setattr(memory, "prepared", Forgetful())  # two networks are ready there
    with pytest.warns(TileInferWarning, match="blocks from now on"):
        found = predict_large(IMAGE, model, tmp_path / "mask.zarr", tile=TILE, verify=0.1)
    certificate = found.report["certificate"]
    assert certificate["pixels"] > IMAGE.size // 20
    assert certificate["labels_differing"] == certificate["largest_difference"] == 0
    assert {shape[1:] for shape in memory.refused} > {TILE}


def test_parts_at_another_phase_would_show(
    model: Path, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_large(IMAGE, model, tmp_path / "whole.zarr", tile=TILE)
    memory.forget()
    memory.pixels = TILE[0] * TILE[1] - 1
    starts = smaller._starts
    monkeypatch.setattr(smaller, "_starts", lambda *axes: [0, 1, *starts(*axes)[1:]])
    with pytest.warns(TileInferWarning, match="blocks from now on"):
        predict_large(IMAGE, model, tmp_path / "parts.zarr", tile=TILE)
    assert chunks(tmp_path / "parts.zarr") != chunks(tmp_path / "whole.zarr")


def test_what_is_no_smaller_ends_the_run_which_the_same_command_continues(
    model: Path, memory: Memory, tmp_path: Path
) -> None:
    out = tmp_path / "parts.zarr"
    options: Any = {"tile": TILE, "workers": 1}
    predict_large(IMAGE, model, tmp_path / "whole.zarr", **options)
    memory.forget()
    memory.pixels, memory.after = 0, BEFORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TileInferWarning)  # a block may be done before the end
        with pytest.raises(OutOfMemoryError) as ended:
            predict_large(IMAGE, model, out, **options)
    text = str(ended.value)
    assert "\n" not in text
    assert re.match(r"running net on array, block [234] \(pixels 0:90, ", text)
    for part in (NO_MEMORY, "memory of this machine ran out", "tile=N", "another device"):
        assert part in text
    written = {name: (out / name).stat().st_mtime_ns for name in chunks(out)}
    assert len(written) >= 2
    memory.forget()
    memory.pixels, memory.after = TILE[0] * TILE[1] - 1, 20
    with pytest.warns(TileInferWarning, match="blocks from now on"):
        found = predict_large(IMAGE, model, out, **options)
    (changed,) = found.report["changed"]
    assert 0 < len(changed["blocks"]) < found.report["blocks_run"] < found.plan.grid.blocks
    assert chunks(out) == chunks(tmp_path / "whole.zarr")
    assert {name: (out / name).stat().st_mtime_ns for name in written} == written


def test_another_start_tries_the_plans_tiles_and_keeps_what_was_changed(
    model: Path, memory: Memory, tmp_path: Path
) -> None:
    out = tmp_path / "mask.zarr"
    options: Any = {"tile": TILE, "workers": 1}

    def stop(progress: Any) -> None:
        if progress.blocks_done == 3:
            raise KeyboardInterrupt

    memory.pixels = TILE[0] * TILE[1] - 1
    with (
        pytest.warns(TileInferWarning, match="blocks from now on"),
        pytest.raises(KeyboardInterrupt),
    ):
        predict_large(IMAGE, model, out, **options, on_progress=stop)
    memory.pixels = ROOMY
    memory.forget()
    found = predict_large(IMAGE, model, out, **options)
    assert {shape[1:] for shape in memory.ran} == {TILE}
    (changed,) = found.report["changed"]
    first = changed["blocks"]
    assert first == list(range(len(first)))
    assert 3 <= len(first) < found.plan.grid.blocks
    assert attributes(found)["changed"] == [changed]
    (out / "0/c/0/2").unlink()
    memory.forget()
    again = predict_large(IMAGE, model, out, **options)
    assert again.report["blocks_run"] == 1
    (changed,) = again.report["changed"]
    assert changed["blocks"] == [block for block in first if block != 1]
    assert attributes(again)["changed"] == [changed]


def test_a_network_that_cannot_be_made_ready_for_want_of_memory_is_for_smaller_tiles(
    model: Path, memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_large(IMAGE, model, tmp_path / "whole.zarr", tile=TILE)
    memory.forget()
    memory.pixels = TILE[0] * TILE[1] - 1

    def prepare(network: Network, plan: Plan) -> Any:
        if plan.grid.tile == SMALLER[0]:
            raise OutputError("it cannot be compiled") from MemoryError()
        return memory.prepare(network, plan)

    monkeypatch.setattr(smaller, "prepare", prepare)
    with pytest.warns(TileInferWarning) as told:
        found = predict_large(IMAGE, model, tmp_path / "parts.zarr", tile=TILE)
    assert ["32 x 72 px instead of 56" in str(each.message) for each in told] == [False, True]
    assert chunks(tmp_path / "parts.zarr") == chunks(tmp_path / "whole.zarr")
    assert [each["tile"] for each in found.report["changed"]] == [[*SMALLER[1]]]


def test_two_processes_may_begin_to_keep_what_was_changed() -> None:
    ours, blocks = zarr.create_group(MemoryStore()), 1_000_000  # only those there are looked at
    for block_number in (0, 2):
        write_changed(begun_changed(ours, blocks), block_number, (64, 32, 1))
    write_changed(begun_changed(ours, blocks), 3, None)
    kept = [{"tile": [64, 32], "batch": 1, "blocks": [0, 2]}]
    assert changed_blocks(open_changed(ours)) == kept


class Mean(nn.Module):
    """Depends on all of the tile."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([pixels, pixels.mean((2, 3), keepdim=True) + 0 * pixels], dim=1)


def test_blended_tiles_and_those_of_one_size_end_at_once(
    model: Path, memory: Memory, tmp_path: Path
) -> None:
    memory.pixels = 1
    with (
        pytest.warns(TileInferWarning, match="blend"),
        pytest.raises(OutOfMemoryError, match=r"running mean on array, block .* out of memory"),
    ):
        predict_large(IMAGE, Mean(), tmp_path / "mask.zarr", workers=1)
    assert len({shape[1:] for shape in memory.refused}) == 1
    plan = plan_prediction(IMAGE, model, tile=TILE)
    assert smaller_plan(plan) is not None
    fixed = AxisGeometry(size=TILE[0], step=0, period=2, margin_before=5, margin_after=5)
    assert _smaller(plan.grid.y, fixed) is plan.grid.y


@pytest.mark.parametrize(
    ("place", "name", "stage"),
    [
        (block, "read_box", "reading array"),
        (block, "leave_out", "assembling memory://"),
        (Mask, "write", "writing memory://"),
    ],
    ids=["reading", "assembling", "writing"],
)
def test_memory_that_runs_out_beside_the_network_is_told(
    model: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, stage: str
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("all is lost") from cause

    monkeypatch.setattr(place, name, fails)
    image = IMAGE[:, :500]
    cause: Exception = MemoryError("Unable to allocate 2 GiB")
    with pytest.raises(OutOfMemoryError) as ended:
        predict_large(image, model)
    told = "block 0 (pixels 0:90, 0:500): memory of this machine ran out (Unable to allocate 2 GiB)"
    assert re.match(rf"{stage}\d*, {re.escape(told)}; run it again", str(ended.value))
    assert isinstance(ended.value, MemoryError)
    cause = ValueError("no")
    with pytest.raises(OSError, match="all is lost") as failed:
        predict_large(image, model)
    assert not isinstance(failed.value, OutOfMemoryError)


class Source:
    """An image whose segments do not fit the memory, or cannot be decoded."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        self.facts: Any = type("Facts", (), {"dtype": "uint8", "levels": (self,)})
        self.segment, self.shape = (128, 128), (300, 300)

    def read(self, *_: Any) -> NDArray[np.generic]:
        raise ImageError("a segment cannot be decoded") from self.cause


def test_want_of_memory_is_no_pixel_that_cannot_be_decoded() -> None:
    box = Box.of(0, 300, 0, 300)
    found: Any = Source(ValueError("not a JPEG"))
    assert len(read_rest(found, 0, box, (0,))[1]) == 9
    scarce: Any = Source(MemoryError())
    with pytest.raises(ImageError):
        read_rest(scarce, 0, box, (0,))


@st.composite
def axes(draw: st.DrawFn) -> tuple[Any, AxisGeometry]:
    scale = draw(st.sampled_from([Scale(), Scale(2), Scale(1, 2), Scale(1, 4)]))
    period = scale.down * draw(st.integers(1, 16))
    step = draw(st.sampled_from([period, 2 * period, 1, 3]))
    step = step if step % scale.down == 0 else step * scale.down
    margins = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    geometry = AxisGeometry(
        size=draw(st.integers(90, 200)) * scale.down,
        step=step,
        period=period,
        margin_before=margins[0] * scale.down,
        margin_after=margins[1] * scale.down,
        halo_before=draw(st.integers(0, 20)),
        halo_after=draw(st.integers(0, 20)),
        scale=scale,
    )
    length, limit = draw(st.integers(1, 3000)), draw(st.integers(64, 1024))
    return exact_grid(length, geometry, core_limit=limit), geometry


@given(axes())
def test_parts_make_up_the_core_at_its_phase(drawn: tuple[Any, AxisGeometry]) -> None:
    given_axis, geometry = drawn
    axis = given_axis
    while (smaller_axis := _smaller(axis, geometry)) is not axis:
        assert smaller_axis.tile < axis.tile
        axis = smaller_axis
        assert geometry.takes(axis.tile)
        assert axis.window == axis.core
        assert axis.lead == given_axis.lead
        assert axis.core % geometry.period_out == 0
        crop = geometry.crop(axis.lead)
        assert crop >= geometry.halo_before
        assert geometry.output(axis.tile) - crop - axis.core >= geometry.halo_after
        starts = _starts(given_axis, axis)
        covered = {pixel for start in starts for pixel in range(start, start + axis.core)}
        assert covered == set(range(given_axis.core))
        for start in starts:
            assert start % geometry.period_out == 0
            assert axis.scale.image_px(start) + axis.tile <= given_axis.tile
