"""What does not fit is refused with both numbers before anything is written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn
from zarr.storage import LocalStore

from tile_infer import OutputError, SettingError, plan_prediction, predict_large
from tile_infer.engine import limits
from tile_infer.engine.footprint import FILE_BYTES
from tile_infer.engine.stitcher.mask import Mask
from tile_infer.engine.stitcher.records import Record
from tile_infer.engine.stitcher.store import claim

GIB = 1 << 30
SMALL = 20_000
"""More than what a run may keep beside its mask while it goes on."""


def blank(height: int = 300, width: int = 400) -> NDArray[np.uint8]:
    return np.broadcast_to(np.uint8(0), (height, width))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the machine have so much memory when a run is about to begin."""

    def leave(size: int) -> None:
        monkeypatch.setattr(limits, "available_bytes", lambda: size)
        monkeypatch.setattr(limits, "resident_bytes", lambda: 0)

    return leave


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Path]]:
    """Let every disk have so much room; return where that was asked."""

    def leave(size: int) -> list[Path]:
        asked: list[Path] = []

        def usage(folder: Path) -> Any:
            asked.append(folder)
            return SimpleNamespace(free=size)

        monkeypatch.setattr(shutil, "disk_usage", usage)
        return asked

    return leave


def refused(tmp_path: Path, kind: type[Exception], message: str, **options: Any) -> None:
    """Check that a run is refused in one line, and that nothing is there afterwards."""
    options = {"out": tmp_path / "deep" / "mask.zarr", "image": blank(), **options}
    image = options.pop("image")
    with pytest.raises(kind, match=message) as caught:
        predict_large(image, nn.Conv2d(1, 2, 3), **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_more_memory_than_there_is_cannot_be_asked_for(
    tmp_path: Path, memory: Callable[[int], None]
) -> None:
    memory(2 * GIB)
    refused(tmp_path, SettingError, r"^memory=3\.0 GB is more than the 2\.0 GB", memory=3 * GIB)
    predict_large(blank(), nn.Conv2d(1, 2, 3), tmp_path / "mask.zarr", memory=2 * GIB)


def test_a_plan_that_needs_more_memory_than_there_is_is_refused(
    tmp_path: Path, memory: Callable[[int], None]
) -> None:
    needed = plan_prediction(blank(), nn.Conv2d(1, 2, 3), tile=(700, 700)).memory_bytes
    memory(needed - 1)
    message = r"needs .* of memory and may use .*; use a smaller tile"
    refused(tmp_path, SettingError, message, tile=(700, 700))
    memory(needed)
    predict_large(blank(), nn.Conv2d(1, 2, 3), tmp_path / "mask.zarr", tile=(700, 700))


def test_a_result_in_memory_counts_as_well(tmp_path: Path, memory: Callable[[int], None]) -> None:
    image = blank(3000, 3000)
    plan = plan_prediction(image, nn.Conv2d(1, 2, 3))
    memory(plan.memory_bytes + 9_000_000 - 1)
    refused(
        tmp_path, SettingError, "the result and the run .* give out=PATH", out=None, image=image
    )
    memory(plan.memory_bytes + 9_000_000)
    predict_large(image, nn.Conv2d(1, 2, 3))


def test_what_the_process_holds_already_is_not_needed_once_more(
    monkeypatch: pytest.MonkeyPatch, memory: Callable[[int], None]
) -> None:
    needed = plan_prediction(blank(), nn.Conv2d(1, 2, 3)).memory_bytes
    memory(needed - (300 << 20))
    with pytest.raises(SettingError, match="of memory and may use"):
        predict_large(blank(), nn.Conv2d(1, 2, 3))
    monkeypatch.setattr(limits, "resident_bytes", lambda: 350 << 20)
    predict_large(blank(), nn.Conv2d(1, 2, 3))
    # An image in memory is no part of what a plan counts.
    memory(needed - (600 << 20))
    monkeypatch.setattr(limits, "resident_bytes", lambda: 9 * GIB)
    with pytest.raises(SettingError, match="of memory and may use"):
        predict_large(blank(), nn.Conv2d(1, 2, 3))


def test_a_disk_that_is_too_small_is_refused(
    tmp_path: Path, disk: Callable[[int], list[Path]]
) -> None:
    needed = plan_prediction(blank(), nn.Conv2d(1, 2, 3)).disk_bytes
    asked = disk(needed - SMALL)
    refused(tmp_path, OutputError, r"may take 1\.\d MB of disk, and 1\.\d MB are free there; make")
    (folder,) = asked
    assert folder.is_relative_to(tmp_path)  # the nearest that is there
    disk(needed)
    predict_large(blank(), nn.Conv2d(1, 2, 3), tmp_path / "deep" / "mask.zarr")


def test_of_a_run_that_continues_only_what_is_left_counts(
    tmp_path: Path, disk: Callable[[int], list[Path]]
) -> None:
    image, network, out = blank(3000, 2000), nn.Conv2d(1, 2, 3), tmp_path / "mask.zarr"
    plan = predict_large(image, network, out).plan
    (out / "0" / "c" / "0" / "0").unlink()
    left = plan.disk_bytes // plan.grid.blocks
    assert plan.grid.blocks == 6
    disk(left - 1)
    with pytest.raises(OutputError, match=r"of disk more, and .* are free there; make room"):
        predict_large(image, network, out)
    disk(left)
    assert predict_large(image, network, out).report["blocks_run"] == 1


def test_a_mask_that_is_complete_or_in_memory_needs_no_room(
    tmp_path: Path, disk: Callable[[int], list[Path]]
) -> None:
    network = nn.Conv2d(1, 2, 3)
    predict_large(blank(), network, tmp_path / "mask.zarr")
    asked = disk(0)
    predict_large(blank(), network, tmp_path / "mask.zarr")
    predict_large(blank(), network)
    assert asked == []


def test_a_mask_that_is_overwritten_makes_room(
    tmp_path: Path, disk: Callable[[int], list[Path]]
) -> None:
    network, out = nn.Conv2d(1, 2, 3), tmp_path / "mask.zarr"
    predict_large(blank(), network, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    needed = plan_prediction(blank(), network).disk_bytes
    disk(needed - size - SMALL)
    with pytest.raises(OutputError, match="are free there"):
        predict_large(blank(), network, out, overwrite=True)
    disk(needed - size)
    predict_large(blank(), network, out, overwrite=True)


def test_a_mask_above_the_size_allowed_is_refused(tmp_path: Path) -> None:
    message = r"has 117\.2 kB before compression, above max_output=117\.2 kB; allow more, or"
    refused(tmp_path, SettingError, message, max_output=300 * 400 - 1)
    probabilities = {"output": "probabilities", "max_output": 300 * 400}
    refused(tmp_path, SettingError, r"has 585\.9 kB", **probabilities)
    predict_large(blank(), nn.Conv2d(1, 2, 3), tmp_path / "mask.zarr", max_output=300 * 400)


def test_the_size_allowed_does_not_keep_a_run_from_being_continued(tmp_path: Path) -> None:
    network, out = nn.Conv2d(1, 2, 3), tmp_path / "mask.zarr"
    predict_large(blank(), network, out, max_output=GIB)
    for allowed in (1, None, 2 * GIB):  # without a warning, which would be an error here
        again = predict_large(blank(), network, out, max_output=allowed)
        assert again.report["blocks_run"] == 0


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 20, 200, 300])
def test_no_mask_takes_more_disk_than_is_said(tmp_path: Path, classes: int) -> None:
    bound, taken = written_noise(tmp_path / "mask.zarr", classes, "labels")
    assert taken <= bound
    # Not a bound that anything would keep.
    assert taken > bound / 2


def test_nor_with_probabilities(tmp_path: Path) -> None:
    bound, taken = written_noise(tmp_path / "mask.zarr", 3, "probabilities")
    assert bound / 2 < taken <= bound


def written_noise(
    out: Path, classes: int, output: Literal["labels", "probabilities"]
) -> tuple[int, int]:
    """Write a mask of noise; return the disk it was said to take, and what it does."""
    plan = plan_prediction(blank(2100, 2900), nn.Conv2d(1, classes, 1), output=output)
    store = LocalStore(out)
    claim(store, plan.to_dict())
    mask, rng = Mask(store, plan), np.random.default_rng(classes)
    labels = np.array([*range(max(2, classes)), plan.recipe.not_computed], plan.recipe.label_dtype)
    for block in range(plan.grid.blocks):
        box = plan.grid.block_box(block)
        noise = rng.choice(labels, box.shape)
        scores = None
        if mask.scores is not None:
            scores = rng.random((classes, *box.shape)).astype(np.float16)
        record = Record.of(block, noise, len(plan.class_names), 0)
        mask.write(record, box, noise, scores)
    mask.finish()
    files = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    folders = sum(path.is_dir() for path in out.rglob("*"))
    whole_blocks = sum(-(-size // FILE_BYTES) for size in files) + folders
    return plan.disk_bytes, whole_blocks * FILE_BYTES
