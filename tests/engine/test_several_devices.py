"""Several devices on one queue of blocks: here the CPU, named twice or thrice."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from tile_infer import (
    DeviceError,
    ModelError,
    OutputError,
    Plan,
    Progress,
    SettingError,
    TileInferError,
    TileInferWarning,
    plan_prediction,
    predict_large,
)
from tile_infer.engine import augmentation, crew, ready, runtime, smaller
from tile_infer.engine.backends.base import Network, Output, Runner
from tile_infer.engine.devices import on_devices_now
from tile_infer.engine.finish import finish
from tile_infer.engine.settings import Settings
from tile_infer.engine.shares import run_bytes, share_of_devices, worker_bytes
from tile_infer.engine.sizing import BASE_BYTES
from tile_infer.engine.sources.segment_cache import CACHE_BYTES

from ..exactness.run_plan import tree
from ..exactness.seeded_networks import export, seeded, textured
from .test_smaller import IMAGE, SMALLER, TILE, network

ALONE: dict[str, Any] = {"device": "cpu", "workers": 1, "tile": (188, 220)}
TWO: dict[str, Any] = {**ALONE, "device": "cpu,cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of many blocks in a row, a network, and the mask of one device."""
    found = tmp_path_factory.mktemp("devices")
    pixels = textured(30, 20000)[:, :, 0]
    tifffile.imwrite(found / "slide.tif", pixels, tile=(64, 256), compression="zlib")
    export(seeded(2, 0, classes=3), found / "net.onnx", 1)
    run(found, found / "whole.zarr", **ALONE)
    return found


def run(folder: Path, out: Path, **options: Any) -> Any:
    given = {"backend": "onnx", "verify": 0, **options}
    return predict_large(folder / "slide.tif", folder / "net.onnx", out, **given)


def chunks(out: Path) -> dict[str, bytes]:
    """Return the bytes of every chunk of a mask, its levels and its scores."""
    files = tree(out).items()
    return {name: found for name, found in files if "/c/" in name and "tile_infer" not in name}


def used(found: Any) -> list[dict[str, Any]]:
    devices: list[dict[str, Any]] = found.report["counts"]["devices"]
    return devices


def tiles_of(found: Any) -> list[int]:
    return [each["tiles"] for each in used(found)]


def on_others(monkeypatch: pytest.MonkeyPatch, change: Callable[[Runner], Any]) -> None:
    """Change how tiles are run on every device but the first, whose network is ready before."""

    def prepare(network: Network, plan: Plan) -> Any:
        return change(augmentation.prepare(network, plan))

    monkeypatch.setattr(smaller, "prepare", prepare)


def test_two_devices_share_the_blocks_and_leave_the_bytes_of_one(
    folder: Path, tmp_path: Path
) -> None:
    whole = run(folder, folder / "whole.zarr", **ALONE)
    found = run(folder, tmp_path / "mask.zarr", **TWO)
    assert chunks(tmp_path / "mask.zarr") == chunks(folder / "whole.zarr")
    assert len(chunks(tmp_path / "mask.zarr")) > 16
    assert found.plan.devices == ("cpu", "cpu")
    assert found.plan.execution == whole.plan.execution
    assert found.report["device"] == "cpu,cpu"
    assert [each["device"] for each in used(found)] == ["cpu", "cpu"]
    assert sum(tiles_of(found)) == found.plan.grid.tiles
    assert min(tiles_of(found)) >= 2 * found.plan.grid.tiles // found.plan.grid.blocks
    for count in ("tiles_run", "chunks_written"):
        assert found.report["counts"][count] > 0
    assert found.report["classes"] == whole.report["classes"]


def as_module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))


def with_sigmoid() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.Sigmoid())


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (as_module, {"output": "logits"}),
        (with_sigmoid, {}),
        (as_module, {"blend": "hann", "tile": (92, 124), "output": "probabilities"}),
        (as_module, {"tta": "flips"}),
    ],
    ids=["module", "module as it is", "blended", "turned"],
)
def test_each_device_has_a_module_of_its_own(
    folder: Path, tmp_path: Path, made: Callable[[], nn.Module], options: dict[str, Any]
) -> None:
    module, pixels = made(), tifffile.imread(folder / "slide.tif")[:, :9000]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    options = {**ALONE, "tile": None, "verify": 0, **options}
    predict_large(pixels, module, tmp_path / "one.zarr", **options)
    found = predict_large(pixels, module, tmp_path / "two.zarr", **{**options, "device": "cpu,cpu"})
    assert min(tiles_of(found)) > 0
    assert chunks(tmp_path / "two.zarr") == chunks(tmp_path / "one.zarr")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_another_network_on_the_second_device_would_show(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, module = tifffile.imread(folder / "slide.tif"), as_module()
    predict_large(pixels, module, tmp_path / "one.zarr", verify=0, **ALONE)
    monkeypatch.setattr(crew, "deepcopy", lambda _: as_module(seed=1))
    predict_large(pixels, module, tmp_path / "two.zarr", verify=0, **TWO)
    assert chunks(tmp_path / "two.zarr") != chunks(tmp_path / "one.zarr")


def test_no_more_devices_are_opened_than_there_are_blocks(tmp_path: Path) -> None:
    pixels = np.zeros((30, 40), np.uint8)
    found = predict_large(pixels, as_module(), **{**TWO, "device": "cpu,cpu,cpu", "tile": None})
    assert tiles_of(found) == [found.plan.grid.tiles]


def test_a_failure_on_one_device_ends_the_run_and_the_others_finish_their_blocks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, failed = threading.Event(), threading.Event()
    done: list[int] = []

    def slow(network: Network, plan: Plan) -> Any:
        run = augmentation.prepare(network, plan)

        def waits(tiles: NDArray[np.generic]) -> Output:
            begun.set()
            assert failed.wait(60)
            done.append(len(tiles))
            return run(tiles)

        return waits

    def fails(_: Runner) -> Any:
        def failing(tiles: NDArray[np.generic]) -> Output:
            assert begun.wait(60)
            failed.set()
            raise ValueError("the second GPU fell off the bus")

        return failing

    out = tmp_path / "mask.zarr"
    with monkeypatch.context() as patched:
        patched.setattr(ready, "prepare", slow)
        on_others(patched, fails)
        with pytest.raises(
            ModelError, match=r"^running net on slide.tif, block \d+ \(.*\) on cpu: the second"
        ):
            run(folder, out, **TWO)
    again = run(folder, out, **ALONE)
    assert 0 < again.report["blocks_run"] < again.plan.grid.blocks
    assert len(done) >= again.plan.grid.tiles // again.plan.grid.blocks
    assert chunks(out) == chunks(folder / "whole.zarr")


def test_memory_that_runs_out_on_one_device_leaves_the_others_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "net.onnx"
    export(network(), model, 1)
    options: dict[str, Any] = {"tile": TILE, "workers": 1, "normalize": "none", "verify": 0}
    predict_large(IMAGE, model, tmp_path / "one.zarr", device="cpu", **options)
    first, other = set[tuple[int, ...]](), set[tuple[int, ...]]()

    def seen(network: Network, plan: Plan) -> Any:
        run = augmentation.prepare(network, plan)

        def runs(tiles: NDArray[np.generic]) -> Output:
            first.add(tiles.shape[1:3])
            return run(tiles)

        return runs

    def short(run: Runner) -> Any:
        def runs(tiles: NDArray[np.generic]) -> Output:
            if tiles.shape[1:3] == TILE:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            other.add(tiles.shape[1:3])
            return run(tiles)

        return runs

    monkeypatch.setattr(ready, "prepare", seen)
    on_others(monkeypatch, short)
    with pytest.warns(TileInferWarning, match="ran out: blocks from now on in tiles of 56 x 136"):
        found = predict_large(IMAGE, model, tmp_path / "two.zarr", device="cpu,cpu", **options)
    assert (first, other) == ({TILE}, {SMALLER[0]})
    (changed,) = found.report["changed"]
    assert 0 < len(changed["blocks"]) < found.plan.grid.blocks
    assert chunks(tmp_path / "two.zarr") == chunks(tmp_path / "one.zarr")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be two GPUs; what runs on them is run by the CPU."""
    monkeypatch.setattr(runtime, "resolve_devices", lambda _: ("cuda:0", "cuda:2"))
    for module in (ready, smaller):
        monkeypatch.setattr(module, "prepare", on_the_cpu)


def on_the_cpu(network: Network, plan: Plan) -> Runner:
    return augmentation.prepare(network, plan.on(["cpu"]))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("early", [True, False])
def test_the_device_that_fails_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    def falls(tiles: NDArray[np.generic]) -> Output:
        raise RuntimeError("fell off the bus")

    def prepared(*_: Any) -> Any:
        if early:
            raise DeviceError("this torch has no CUDA")
        return falls

    monkeypatch.setattr(smaller, "prepare", prepared)
    told = r"CUDA \(running block .* on cuda:2\)$" if early else r"^running .* on cuda:2: fell off"
    with pytest.raises(TileInferError, match=told) as failed:
        run(folder, tmp_path / "mask.zarr", **{**ALONE, "device": "cuda"})
    assert "\n" not in str(failed.value)


@pytest.mark.usefixtures("two_gpus")
def test_the_device_that_runs_smaller_batches_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(network: Network, plan: Plan) -> Any:
        run = on_the_cpu(network, plan)

        def runs(tiles: NDArray[np.generic]) -> Output:
            if len(tiles) > 1:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return run(tiles)

        return runs

    monkeypatch.setattr(smaller, "prepare", short)
    options = {**ALONE, "device": "cuda", "batch_size": 2}
    message = "memory of cuda:2 ran out: ran 1 tiles at once instead of 2"
    with pytest.warns(TileInferWarning, match=message):
        found = run(folder, tmp_path / "mask.zarr", **options)
    assert found.report["device"] == "cuda:0,2"
    assert [each["device"] for each in used(found)] == ["cuda:0", "cuda:2"]
    assert [each["most_at_once"] for each in used(found)] == [None, 1]


class StopError(Exception):
    pass


def stop(progress: Progress) -> None:
    if progress.blocks_done >= 3:
        raise StopError


@pytest.mark.parametrize(("then", "now"), [(ALONE, TWO), (TWO, ALONE), (TWO, {})])
def test_a_mask_is_continued_on_another_number_of_devices(
    folder: Path, tmp_path: Path, then: dict[str, Any], now: dict[str, Any]
) -> None:
    out = tmp_path / "mask.zarr"
    plans: list[Plan] = []
    with pytest.raises(StopError):
        run(folder, out, on_plan=plans.append, on_progress=stop, **then)
    found = run(folder, out, on_plan=plans.append, **now)
    assert 0 < found.report["blocks_run"] < found.plan.grid.blocks
    assert found.report["device"] == now.get("device", "cpu,cpu")
    assert len(used(found)) == len(found.plan.devices)
    assert plans[0].fingerprint == plans[1].fingerprint
    assert chunks(out) == chunks(folder / "whole.zarr")
    more = len(plans[1].devices) - len(plans[0].devices)
    change = plans[1].memory_bytes - plans[0].memory_bytes
    assert (change > 0, change < 0) == (more > 0, more < 0)


def test_parts_run_on_different_numbers_of_devices(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    for number, options in enumerate((TWO, ALONE, TWO)):
        found = run(folder, out, part=f"{number}/3", **options)
        assert len(used(found)) == len(found.plan.devices) == (1 if options is ALONE else 2)
    assert finish(out).report["counts"]["devices"] == []
    assert chunks(out) == chunks(folder / "whole.zarr")


def test_devices_of_another_kind_do_not_continue_a_mask(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    with pytest.raises(StopError):
        run(folder, out, on_progress=stop, **TWO)
    with pytest.raises(OutputError, match="device: cpu,cpu then, cuda:0,1 now"):
        run(folder, out, **{**TWO, "device": "cuda:0,1"})


def test_more_devices_than_the_memory_has_room_for_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mask.zarr"
    with pytest.raises(StopError):
        run(folder, out, on_progress=stop, **ALONE)
    before = tree(out)
    memory = run(folder, folder / "whole.zarr", **ALONE).plan.memory_bytes + (1 << 20)
    many = {**ALONE, "device": ",".join(["cpu"] * 9), "memory": memory}
    with pytest.raises(SettingError, match=r"the run needs .* and may use .* or devices"):
        run(folder, out, **many)
    assert tree(out) == before


def test_a_mask_goes_on_with_the_devices_that_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_prediction(folder / "slide.tif", folder / "net.onnx", **ALONE, backend="onnx")

    def on(count: int, asked: str | None, then: str, given: str | None) -> tuple[str, ...]:
        monkeypatch.setattr("tile_infer.engine.backends.device.cuda_devices", lambda: count)
        stored = replace(
            plan.on([f"cuda:{number}" for number in then]),
            asked=("device",) if asked else (),
        )
        return on_devices_now(stored, Settings(device=given)).devices

    assert on(3, None, "0", None) == ("cuda:0", "cuda:1", "cuda:2")
    assert on(3, None, "01", "auto") == ("cuda:0", "cuda:1", "cuda:2")
    assert on(3, "cuda:1", "1", None) == ("cuda:1",)
    assert on(1, "cuda:1", "1", None) == ("cuda:0",)
    assert on(3, "cuda:1", "1", "cuda:2,0") == ("cuda:2", "cuda:0")
    assert on(0, None, "01", None) == ("cuda:0", "cuda:1"), "which then tells what is missing"


def test_a_module_that_cannot_be_copied_is_told(tmp_path: Path) -> None:
    module = as_module()
    vars(module)["lock"] = threading.Lock()
    pixels = textured(30, 9000)[:, :, 0]
    predict_large(pixels, module, verify=0, **ALONE)
    with pytest.raises(ModelError, match=r"^a Sequential cannot be copied for cpu \(.*one device"):
        predict_large(pixels, module, tmp_path / "mask.zarr", **TWO)
    assert not (tmp_path / "mask.zarr").exists()


def test_a_file_that_has_changed_is_not_run_on_the_second_device(
    folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes((folder / "net.onnx").read_bytes())

    def change(_: Plan) -> None:
        export(seeded(2, 0, classes=3, seed=1), model, 1)

    with pytest.raises(ModelError, match="net has changed since the run began"):
        predict_large(folder / "slide.tif", model, tmp_path / "m.zarr", on_plan=change, **TWO)


def test_the_plan_counts_the_memory_and_the_blocks_of_all_devices(folder: Path) -> None:
    image, model = folder / "slide.tif", folder / "net.onnx"
    one, two = (
        plan_prediction(image, model, **options, backend="onnx") for options in (ALONE, TWO)
    )
    assert (one.blocks_in_flight, two.blocks_in_flight) == (2, 4)
    assert one.grid == two.grid
    assert share_of_devices(one) is None
    share = share_of_devices(two)
    assert share is not None
    assert (share.workers, share.kind) == (2, "device")
    assert share.blocks == -(-two.grid.blocks // 2)
    assert one.strips.kept_bytes == two.strips.kept_bytes == CACHE_BYTES
    assert one.memory_bytes == BASE_BYTES + share.memory_bytes
    assert two.memory_bytes == BASE_BYTES + 2 * share.memory_bytes
    assert run_bytes(one, 2) == run_bytes(two, 2) == two.memory_bytes
    assert run_bytes(two, 1) == one.memory_bytes
    assert worker_bytes(one, 2) == worker_bytes(two, 2)
