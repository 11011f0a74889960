"""Where memory runs out, less is run at once; the mask is the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from tile_infer import ModelError, OutputError, Plan, TileInferWarning, predict_large
from tile_infer.engine import predict, ready, runtime, smaller
from tile_infer.engine.backends.base import Output
from tile_infer.engine.halving import HalvingRunner, is_out_of_memory

IMAGE = np.random.default_rng(0).integers(0, 4, (900, 700, 2), dtype=np.uint8)
LOST = 16
"""Pixels that the network loses at each side."""

NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Device:
    """Runs so many pixels at once, and no more."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.ran: list[int] = []
        self.kept: tuple[slice, ...] = ()
        """What is kept of a tile, where a plan says so."""

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        if tiles.shape[0] * tiles.shape[1] * tiles.shape[2] > self.pixels:
            raise RuntimeError(NO_MEMORY)
        self.ran.append(len(tiles))
        return Output(tiles[..., 0][(slice(None), *self.kept)], None)


@pytest.mark.parametrize(("fits", "ran"), [(8, [7]), (4, [3, 3, 1]), (2, [1] * 7)])
def test_a_batch_is_run_in_parts_that_fit(fits: int, ran: list[int]) -> None:
    device = Device(fits * 4)
    run, tiles = HalvingRunner(device), np.arange(28).reshape(7, 2, 2, 1)
    for _ in range(2):
        labels = run(tiles).labels
        assert labels is not None
        assert np.array_equal(labels, tiles[..., 0])
    assert device.ran == ran * 2  # what does not fit is not tried again
    assert run.most == (None if fits == 8 else ran[0])


def test_what_does_not_fit_alone_or_fails_otherwise_is_told() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        HalvingRunner(Device(3))(np.zeros((4, 2, 2, 1)))

    with pytest.raises(RuntimeError, match="out of memory"):  # a file that fixes the batch
        HalvingRunner(Device(8), least=4)(np.zeros((4, 2, 2, 1)))

    def fails(tiles: NDArray[np.generic]) -> Output:
        raise ValueError(f"{len(tiles)} tiles")

    with pytest.raises(ValueError, match="4 tiles"):
        HalvingRunner(fails)(np.zeros((4, 2, 2, 1)))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 8"),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Exception during loading: std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        MemoryError(),
    ],
)
def test_every_library_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)
    other = RuntimeError("could not create a primitive descriptor for a convolution")
    assert not is_out_of_memory(other)
    wrapped = ModelError("the network cannot be compiled")
    assert not is_out_of_memory(wrapped)
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a GPU of a stated memory be there; what runs on it is run by the CPU."""
    monkeypatch.setattr(runtime, "resolve_devices", lambda _: ("cuda:0",))

    def of(pixels: int) -> Device:
        device = Device(pixels)

        def prepare(network: Any, plan: Plan) -> Device:
            sides = zip(plan.recipe.crop, plan.recipe.window, strict=True)
            device.kept = tuple(slice(LOST + a, LOST + a + length) for a, length in sides)
            return device

        monkeypatch.setattr(ready, "prepare", prepare)
        monkeypatch.setattr(smaller, "prepare", prepare)
        monkeypatch.setattr(predict, "certify", lambda *_, **__: None)
        return device

    return of


def network() -> nn.Module:
    return nn.Conv2d(2, 4, 2 * LOST + 1)


def test_on_a_gpu_the_batch_is_halved_then_the_tile(gpu: Any, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    roomy = gpu(1 << 40)
    plan = predict_large(IMAGE, network(), tile=(256, 256), batch_size=16).plan
    assert plan.batch == 16
    assert max(roomy.ran) == 16
    gpu(5 * 256 * 256)
    with pytest.warns(TileInferWarning, match=r"running less .* cannot run 8 tiles of 256"):
        found = predict_large(IMAGE, network(), tile=(256, 256), batch_size=16)
    assert found.plan.batch == 4
    assert np.array_equal(found, IMAGE[..., 0])
    gpu(1 << 40)
    largest = predict_large(IMAGE, network()).plan.grid.tile
    gpu(largest[0] * largest[1] - 1)
    with pytest.warns(TileInferWarning, match="running less at once"):
        found = predict_large(IMAGE, network())
    assert found.plan.grid.tile[0] * found.plan.grid.tile[1] < largest[0] * largest[1]
    assert np.array_equal(found, IMAGE[..., 0])
    gpu(8)
    with pytest.raises(ModelError, match=r"cannot run 1 tiles of .* out of memory"):
        predict_large(IMAGE, network(), out)
    assert not out.exists()


def test_memory_that_others_take_later_is_no_end(gpu: Any) -> None:
    device = gpu(1 << 40)

    def taken(_: object) -> None:
        device.pixels = 2 * 256 * 256

    with pytest.warns(TileInferWarning, match="ran 2 tiles at once instead of 8"):
        found = predict_large(IMAGE, network(), tile=(256, 256), batch_size=8, on_plan=taken)
    assert np.array_equal(found, IMAGE[..., 0])
    assert found.plan.batch == 8


def test_the_same_command_continues_what_was_halved(gpu: Any, tmp_path: Path) -> None:
    def run(batch_size: int | None) -> Plan:
        out = tmp_path / "mask.zarr"
        with pytest.warns(TileInferWarning, match="running less at once"):
            return predict_large(IMAGE, model, out, tile=(256, 256), batch_size=batch_size).plan

    gpu(5 * 256 * 256)
    model = network()
    first = run(16)
    assert (first.batch, first.settings.batch_size, first.asked) == (4, 16, ("tile", "batch_size"))
    assert run(16) == run(None) == first
    with pytest.raises(OutputError, match="batch_size: 16 then, 4 now"):
        predict_large(IMAGE, model, tmp_path / "mask.zarr", batch_size=4)
