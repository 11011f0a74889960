"""Which tiles are taken where nothing is measured: by work, within the memory."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tile_infer.engine import sizing
from tile_infer.engine.backends.base import Precision
from tile_infer.engine.backends.device_facts import DeviceMemory
from tile_infer.engine.layout import usual_layout
from tile_infer.engine.settings import Settings
from tile_infer.tiler.errors import SettingError

from .layouts import GIB, WORK, layouts


@pytest.mark.parametrize(
    ("side", "device_memory", "precision", "most"),
    [(20_000, 32, "fp32", 1.04), (20_000, 16, "fp16", 1.04), (2_000, 16, "fp32", 1.10)],
)
def test_a_gpu_repeats_little_of_the_papers_network(
    side: int, device_memory: int, precision: Precision, most: float
) -> None:
    found = layouts(
        side, "cuda:0", device_memory=device_memory * GIB, precision=precision, workers=None
    )
    assert usual_layout(found).redundancy <= most
    # With the largest core of 512 px it is missed.
    assert layouts(side, "cuda:0", cores=[512])[0].redundancy > most


@pytest.mark.parametrize("gib", [1, 4, 8, 16, 80])
def test_what_lies_on_a_gpu_fits_its_memory(gib: int) -> None:
    found = layouts(30_000, "cuda:0", device_memory=gib * GIB, workers=None)
    assert {layout.execution.workers for layout in found} <= {1, 2, 4}
    for layout in found:
        assert layout.at_once * WORK.bytes(layout.recipe.tile) <= gib * GIB
    # More memory is used for larger tiles, as far as they go.
    largest = found[-1].recipe.tile[0]
    assert largest == 4284 or 1.4 * WORK.bytes((largest, largest)) > gib * GIB / 2


def test_a_tile_that_fits_a_gpu_once_is_run_alone() -> None:
    found = layouts(30_000, "cuda:0", device_memory=10 * GIB, workers=None)
    assert [found[0].execution.workers, found[-1].execution.workers] == [4, 1]
    assert found[0].batch > found[-1].batch == 1


def test_no_tile_that_fits_leaves_the_smallest() -> None:
    found = layouts(30_000, "cuda:0", device_memory=1 << 20)
    assert [layout.recipe.tile for layout in found] == [layouts(30_000, "cuda:0")[0].recipe.tile]


@pytest.mark.parametrize("gib", [2, 4, 8, 64])
def test_larger_tiles_on_a_cpu_stay_within_the_memory(gib: int) -> None:
    found = layouts(30_000, memory=gib * GIB)
    assert all(layout.memory_bytes <= gib * GIB for layout in found)
    tiles = [layout.recipe.tile[0] for layout in found]
    assert tiles == sorted(tiles)
    assert len(tiles) < 7 or gib == 64


def test_too_little_memory_for_the_smallest_tile_is_refused() -> None:
    with pytest.raises(SettingError, match=r"of memory and may use 300\.0 MB"):
        layouts(30_000, memory=300 << 20)


@pytest.mark.parametrize("side", [2_000, 20_000])
def test_a_cpu_goes_beyond_its_usual_core_where_that_saves_much(side: int) -> None:
    found = layouts(side)
    assert usual_layout(found).tiling.grid.core == (1008, 1008)
    usual = next(each for each in found if each.tiling.grid.core == (512, 512))
    below = [each for each in found if each.recipe.tile <= usual.recipe.tile]
    assert usual_layout(below) is usual
    # Nor does one whose workers would idle.
    idle = [
        replace(each, execution=replace(each.execution, workers=1)) for each in found[len(below) :]
    ]
    assert usual_layout([*below, *idle]) is usual
    # A network that repeats next to nothing gains nothing by it.
    same = [replace(each, redundancy=1.0 + 1 / each.recipe.tile[0]) for each in found]
    assert usual_layout(same).recipe.tile == usual.recipe.tile


def test_two_thousand_pixels_repeat_a_tenth_at_most_on_a_cpu_too() -> None:
    assert usual_layout(layouts(2_000)).redundancy <= 1.10
    # In little memory that cannot be.
    assert usual_layout(layouts(2_000, memory=2 * GIB)).redundancy > 1.10


def test_a_gpu_takes_the_smallest_of_those_that_repeat_as_little() -> None:
    small, large, larger = layouts(
        30_000, "cuda:0", cores=[512, 1024, 2048], device_memory=GIB * 80
    )
    alike = replace(large, redundancy=1.001 * larger.redundancy)
    assert usual_layout([small, alike, larger]) is alike
    assert usual_layout([small, large, larger]) is larger


def test_gpu_memory_is_what_the_driver_says_unless_it_is_stated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizing, "device_memory", lambda device: DeviceMemory(10 * GIB, 80 * GIB))
    assert sizing.device_budget(["cuda:0"], Settings()) == 8 * GIB
    assert sizing.device_budget(["cuda:0"], Settings(device_memory=GIB)) == GIB
    monkeypatch.setattr(sizing, "device_memory", lambda device: None)
    assert sizing.device_budget(["cuda:0"], Settings()) == sizing.DEVICE_BYTES


def test_what_torch_keeps_of_a_gpu_is_given_back_before_its_memory_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {"bytes": 60 * GIB}
    cuda = SimpleNamespace(is_initialized=lambda: True, empty_cache=kept.clear)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))

    def memory(device: str) -> DeviceMemory:
        return DeviceMemory(80 * GIB - kept.get("bytes", 0), 80 * GIB)

    monkeypatch.setattr(sizing, "device_memory", memory)
    assert sizing.device_budget(["cpu"], Settings()) == 0
    assert kept
    assert sizing.device_budget(["cuda:0"], Settings()) == 64 * GIB


def test_the_gpu_with_the_least_memory_counts_and_one_that_is_named_twice_has_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {"cuda:0": DeviceMemory(40 * GIB, 80 * GIB), "cuda:1": DeviceMemory(10 * GIB, 80 * GIB)}
    monkeypatch.setattr(sizing, "device_memory", free.__getitem__)
    assert sizing.device_budget(["cuda:0", "cuda:1"], Settings()) == 8 * GIB
    assert sizing.device_budget(["cuda:0", "cuda:0"], Settings()) == 16 * GIB
    assert sizing.device_budget(["cpu", "cpu"], Settings()) == 0


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize(("side_px", "smaller_blocks"), [(30_000, False), (8_000, True)])
def test_devices_have_the_tiles_of_one_in_blocks_enough_and_add_up_their_memory(
    device: str, side_px: int, smaller_blocks: bool
) -> None:
    (one,), (four,) = (
        layouts(side_px, device, cores=[512], devices=count, device_memory=16 * GIB * count)
        for count in (1, 4)
    )
    assert (four.at_once, four.recipe, four.runs) == (one.at_once, one.recipe, one.runs)
    assert four.tiling.grid.chunk == one.tiling.grid.chunk
    assert (four.tiling.grid.blocks > one.tiling.grid.blocks) == smaller_blocks
    assert four.tiling.grid.blocks >= 4 * four.execution.workers
    if not smaller_blocks:
        base = sizing.BASE_BYTES
        assert four.memory_bytes - base == 4 * (one.memory_bytes - base)


def test_devices_that_the_host_has_no_memory_for_are_refused() -> None:
    assert layouts(30_000, cores=[512], memory=16 * GIB)
    with pytest.raises(SettingError, match="the run needs"):
        layouts(30_000, cores=[512], memory=16 * GIB, devices=64)
