"""A run that was stopped and resumed leaves the bytes of one that was not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tile_infer.engine.stitcher.mask as mask_module
from tile_infer import OutputError, Progress, TileInferError, predict_large
from tile_infer.engine.backends.base import Output
from tile_infer.engine.stitcher.mask import Mask
from tile_infer.engine.stitcher.pyramid import build_level

from .run_plan import tree
from .seeded_networks import export, seeded, textured

SLIDE = textured(30, 20000)[:, :, 0]


class StopError(Exception):
    pass


def stop_after(blocks: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.blocks_done >= blocks:
            raise StopError

    return report


def sigmoid_ended() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3), nn.Sigmoid())


@pytest.fixture(params=["torch", "torch, sigmoid", "onnx"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "torch, sigmoid":
        return sigmoid_ended()
    module = seeded(2, 0, classes=3)
    return module if request.param == "torch" else export(module, tmp_path / "net.onnx", 1)


@pytest.mark.parametrize(
    "options",
    [{"output": "logits"}, {"blend": "hann", "tile": (92, 124), "output": "probabilities"}],
    ids=["exact", "blended"],
)
def test_stopped_thrice_and_resumed(model: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    predict_large(SLIDE, model, whole, workers=2, **options)
    for blocks in (0, 1, 4):
        with pytest.raises(StopError):
            predict_large(SLIDE, model, parts, workers=2, on_progress=stop_after(blocks), **options)
    assert tree(parts) != tree(whole)
    (parts / "0/c/0/0.0a1b0a1b0a1b0a1b0a1b0a1b0a1b0a1b.partial").write_bytes(b"cut short")
    resumed = predict_large(SLIDE, model, parts, **options)
    assert 0 < resumed.report["blocks_run"] < resumed.plan.grid.blocks
    assert tree(parts) == tree(whole)
    assert sum(row["pixels"] for row in resumed.report["classes"]) == SLIDE.size


def test_a_write_that_fails_loses_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    predict_large(SLIDE, model, whole, workers=2)
    write, calls = Mask.write, []

    def fails(mask: Mask, record: Any, *rest: Any) -> None:
        calls.append(record.block)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        write(mask, record, *rest)

    monkeypatch.setattr(Mask, "write", fails)
    with pytest.raises(OutputError, match=r"writing .*block .*: No space left on device"):
        predict_large(SLIDE, model, parts, workers=2)
    monkeypatch.undo()
    predict_large(SLIDE, model, parts)
    assert tree(parts) == tree(whole)


def test_a_stop_while_the_lower_levels_are_built_loses_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    predict_large(SLIDE, model, whole, workers=2)
    built = []

    def stops(finer: Any, coarser: Any) -> None:
        built.append(coarser.path)
        build_level(finer, coarser)
        raise StopError

    monkeypatch.setattr(mask_module, "build_level", stops)
    with pytest.raises(OutputError, match=r"^finishing .*parts\.zarr: StopError$"):
        predict_large(SLIDE, model, parts, workers=2)
    monkeypatch.undo()
    assert built
    assert tree(parts) != tree(whole)
    resumed = predict_large(SLIDE, model, parts)
    assert resumed.report["blocks_run"] == 0
    assert tree(parts) == tree(whole)


def test_a_chunk_that_went_missing_is_made_again(model: Any, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    predict_large(SLIDE, model, out, workers=2, output="probabilities")
    before = tree(out)
    (out / "0/c/0/3").unlink()
    (out / "probabilities/c/0/0/5").write_bytes(b"")
    again = predict_large(SLIDE, model, out)
    assert again.report["blocks_run"] == 2
    assert tree(out) == before


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("cut", "file", "again"),
    [
        (_half, "0/c/0/3", 1),
        (_empty, "0/c/0/3", 1),
        (_half, "probabilities/c/0/0/2", 1),
        (_half, "tile_infer/records/c/4/0", 1),
        (_empty, "tile_infer/records/c/4/0", 1),
        (_empty, "tile_infer/records/zarr.json", None),
        (_empty, "0/zarr.json", 0),
        (_empty, "zarr.json", 0),
    ],
)
def test_what_a_power_cut_took_is_made_again(
    model: Any, tmp_path: Path, cut: Callable[[Path], None], file: str, again: int | None
) -> None:
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    options: Any = {"output": "probabilities", "workers": 1}
    predict_large(SLIDE, model, whole, **options)
    with pytest.raises(StopError):
        predict_large(SLIDE, model, parts, on_progress=stop_after(6), **options)
    left = sum(path.is_dir() for path in (whole / "tile_infer/records/c").iterdir())
    left -= sum(path.is_dir() for path in (parts / "tile_infer/records/c").iterdir())
    cut(parts / file)
    resumed = predict_large(SLIDE, model, parts, **options)
    if again is not None:
        assert resumed.report["blocks_run"] == left + again
    assert tree(parts) == tree(whole)


def test_a_finished_run_does_not_run_the_network(tmp_path: Path) -> None:
    module, out = seeded(2, 0, classes=3), tmp_path / "mask.zarr"
    first = predict_large(SLIDE, module, out)
    before = tree(out)
    module.register_forward_pre_hook(_refuse)
    again = predict_large(SLIDE, module, out)
    assert again.report["blocks_run"] == 0
    assert again.report["classes"] == first.report["classes"]
    assert np.array_equal(again, first)
    assert tree(out) == before


def _refuse(*_: object) -> Output:
    raise AssertionError("the network was run")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"tile": (92, 108)}, "tile: "),
        ({"threshold": 0.25}, "threshold: 0.5 then, 0.25 now"),
        ({"normalize": "none"}, "normalize: unit then, none now"),
        ({"output": "logits"}, "output: labels then, logits now"),
        ({"blend": "hann"}, "blend: not given then, hann now"),
        ({"batch_size": 3}, "batch_size: 1 then, 3 now"),
        ({"precision": "bf16"}, "precision: fp32 then, bf16 now"),
        ({"halo": 8}, "halo: not given then, 8 now"),
    ],
    ids=str,
)
def test_other_settings_are_refused_and_named(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    module, out = seeded(2, 0, classes=1), tmp_path / "mask.zarr"
    with pytest.raises(StopError):
        predict_large(SLIDE, module, out, on_progress=stop_after(1))
    before = tree(out)
    with pytest.raises(OutputError, match=named) as caught:
        predict_large(SLIDE, module, out, **changed)
    assert "\n" not in str(caught.value)
    assert tree(out) == before


def test_another_image_or_model_is_refused_and_named(tmp_path: Path) -> None:
    module, out = seeded(2, 0, classes=3), tmp_path / "mask.zarr"
    predict_large(SLIDE, module, out)
    before = tree(out)
    with pytest.raises(OutputError, match="image: array with other content or size"):
        predict_large(SLIDE[:, ::-1], module, out)
    with pytest.raises(OutputError, match="model: seededunet with other content"):
        predict_large(SLIDE, seeded(2, 0, classes=3, seed=1), out)
    with pytest.raises(TileInferError, match="threshold"):
        predict_large(SLIDE, module, out, threshold=0.25)
    assert tree(out) == before
    third = predict_large(SLIDE[:, ::-1], module, out, overwrite=True)
    assert third.report["blocks_run"] == third.plan.grid.blocks


def test_what_a_kill_left_of_the_claim_is_no_foreign_folder(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    (out / "tile_infer").mkdir(parents=True)
    (out / "tile_infer/zarr.0a1b0a1b0a1b0a1b0a1b0a1b0a1b0a1b.partial").write_text("{")
    predict_large(SLIDE, seeded(2, 0, classes=3), out)
    assert "tile_infer/zarr.0a1b0a1b0a1b0a1b0a1b0a1b0a1b0a1b.partial" not in tree(out)


def test_killed_twenty_times(tmp_path: Path) -> None:
    """Each child is killed without warning between the first chunk and the last."""
    script = Path(__file__).with_name("killed_runs.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, "20"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["kills", "20"]
    whole, parts = tree(tmp_path / "whole.zarr"), tree(tmp_path / "parts.zarr")
    assert whole == parts
    assert sum(name.startswith("0/c/") for name in whole) > 100
