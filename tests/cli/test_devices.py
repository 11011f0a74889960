"""Several devices from the command line; here the CPU, named twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from ..exactness.run_plan import tree
from .conftest import Run, Write
from .test_usage import assert_one_error

PIXELS = np.random.default_rng(0).integers(0, 255, (1500, 2100), np.uint8)


def chunks(out: Path) -> dict[str, bytes]:
    return {name: found for name, found in tree(out).items() if name[0].isdigit() and "/c/" in name}


def test_two_devices_make_the_masks_of_one(
    run: Run, image: Write, bright: Path, tmp_path: Path
) -> None:
    for name, pixels in (("a.tif", PIXELS), ("b.tif", PIXELS[::-1])):
        image(name, pixels)
    command = ("a.tif", "b.tif", "--model", bright, "--workers", "1")
    one = run(*command, "--out", "one/", "--device", "cpu")
    two = run(*command, "--out", "two/", "--device", "cpu,cpu", "--report", ".json")
    assert (one.code, two.code) == (0, 0), two.err
    for name in ("a.bright.zarr", "b.bright.zarr"):
        assert chunks(tmp_path / "one" / name) == chunks(tmp_path / "two" / name)
        assert len(chunks(tmp_path / "one" / name)) > 6
    assert "onnx on cpu,cpu, fp32" in two.out
    notes = [line for line in two.err.splitlines() if line.startswith("note: 2 devices, up to 3")]
    assert len(notes) == 2
    assert "devices" not in one.err
    (report,) = tmp_path.rglob("a*.json")
    used = json.loads(report.read_text())["counts"]["devices"]
    assert [each["device"] for each in used] == ["cpu", "cpu"]
    assert min(each["tiles"] for each in used) > 0


def test_a_plan_says_what_falls_to_each_device(run: Run, image: Write, bright: Path) -> None:
    image(pixels=PIXELS)
    command = ("plan", "slide.tif", "--model", bright, "--workers", "1", "--device", "cpu,cpu")
    done = run(*command)
    assert done.code == 0, done.err
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "blocks 6, 1 at the same time on each device" in rows
    assert any(row.startswith("network bright, onnx on cpu,cpu, ") for row in rows)
    assert any(row.startswith("share 2 devices, up to 3 blocks and ") for row in rows)
    plan = json.loads(run(*command, "--json").out)
    assert plan["device"] == "cpu,cpu"
    share = plan["share"]
    assert (share["workers"], share["blocks"], share["kind"]) == (2, 3, "device")
    alone = json.loads(run(*command[:-1], "cpu", "--json").out)
    assert "share" not in alone
    assert plan["memory_bytes"] - alone["memory_bytes"] == share["memory_bytes"] > 0


@pytest.mark.parametrize("command", [[], ["plan"]])
def test_a_gpu_that_is_not_there_is_told(
    run: Run, image: Write, bright: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tile_infer.engine.backends.device.cuda_devices", lambda: 2)
    done = run(*command, image(), "--model", bright, "--device", "cuda:0,2")
    assert done.code == 1
    assert_one_error(done.err, "--device cuda:0,2", "2 NVIDIA GPUs", "--device cpu")
