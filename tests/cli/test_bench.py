import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tile_infer.cli import bench
from tile_infer.engine import network_alone
from tile_infer.engine.throughput import Throughput

from .conftest import Run, Write


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_alone, "ROUND_SECONDS", 0.0)


@pytest.fixture
def picture(image: Write) -> Path:
    return image(pixels=np.random.default_rng(0).integers(0, 255, (700, 900), np.uint8))


def test_json_has_every_figure_of_each_device(run: Run, picture: Path, bright: Path) -> None:
    done = run("bench", "--model", bright, "--image", picture, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["model"] == "bright.onnx"
    (row,) = found["devices"]
    assert set(row) == {field.name for field in fields(Throughput)}
    assert (row["device"], row["backend"], row["precision"]) == ("cpu", "onnx", "fp32")
    assert row["image"] == [700, 900]
    assert sum(row["shares"].values()) == pytest.approx(1)
    assert set(row["shares"]) == {"reading", "assembling", "network", "writing"}
    assert 0 < row["device_busy"] <= 1
    assert row["bound_by"] in ("the network", "reading", "writing", "the engine")
    for name in ("megapixels_per_second", "network_megapixels_per_second", "engine_over_network"):
        assert row[name] > 0
    assert row["peak_rss_bytes"] > 1 << 20
    assert row["peak_device_bytes"] is None


def test_the_options_of_a_run_are_kept(run: Run, picture: Path, bright: Path) -> None:
    options = ["--tile", "128", "--workers", "1", "--batch-size", "2", "--device", "cpu"]
    done = run("bench", "--model", bright, "--image", picture, "--json", *options)
    (row,) = json.loads(done.out)["devices"]
    assert (row["tile"], row["workers"], row["batch"]) == ([128, 128], 1, 2)
    assert row["redundancy"] > 1


def test_a_table_has_a_row_for_each_device_and_nothing_is_left(
    run: Run, picture: Path, bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    done = run("bench", "--model", bright, "--image", picture, "--device", "cpu")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[0] == "device"
    assert "bound by" in lines[0]
    assert sum(line.startswith("cpu ") for line in lines) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_gpu_that_cannot_be_had_is_left_out_with_a_warning(
    run: Run, picture: Path, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "cuda_devices", lambda: 1)
    monkeypatch.setattr("tile_infer.engine.backends.device.cuda_devices", lambda: 1)
    done = run("bench", "--model", bright, "--image", picture, "--json")
    assert done.code == 0
    assert [row["device"] for row in json.loads(done.out)["devices"]] == ["cpu"]
    assert "warning: cuda:0 is left out: " in done.err


def test_each_gpu_has_a_row_after_the_cpu_and_all_of_them_have_one(
    run: Run, picture: Path, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measured(image: Path, model: Path, settings: Any, progress: Any) -> Throughput:
        asked.append(settings.device)
        return made_up(settings.device)

    monkeypatch.setattr(bench, "cuda_devices", lambda: 2)
    monkeypatch.setattr(bench, "measure_throughput", measured)
    done = run("bench", "--model", bright, "--image", picture)
    assert asked == ["cpu", "cuda:0", "cuda:1", "cuda:0,1"]
    lines = [line.split() for line in done.out.splitlines() if line]
    for device in asked:
        assert sum(line[0] == device for line in lines) == 3, "two tables, and what it is"
    assert done.out.count("px at a time on each\n") == 1
    assert "12.3" in done.out
    assert "3.0 GB" in done.out
    monkeypatch.setattr("tile_infer.engine.backends.device.cuda_devices", lambda: 3)
    asked.clear()
    for device in ("cuda", "cuda:2,0", "cuda:1"):
        assert run("bench", "--model", bright, "--image", picture, "--device", device).code == 0
    assert asked == ["cuda:0,1,2", "cuda:2,0", "cuda:1"], "as a run with this option is made"


def made_up(device: str) -> Throughput:
    return Throughput(
        device=device,
        name="Some device",
        backend="onnx",
        precision="fp32",
        batch=4,
        workers=2,
        tile=(572, 572),
        image=(9000, 9000),
        seconds=6.6,
        planning_seconds=1.0,
        megapixels_per_second=12.3,
        tiles_per_second=80.0,
        network_megapixels_per_second=13.0,
        network_tiles_per_second=85.0,
        engine_over_network=1.06,
        redundancy=1.25,
        shares={"reading": 0.4, "network": 0.6},
        device_busy=0.9,
        bound_by="the network",
        peak_rss_bytes=1 << 30,
        peak_device_bytes=None if device == "cpu" else 3 << 30,
    )


@pytest.mark.parametrize(
    ("tokens", "code", "parts"),
    [
        (["--device", "cuda:7"], 1, ["--device cuda:7 was asked for", "--device cpu"]),
        (["--device", "gpu"], 2, ["--device", "cuda:N"]),
        (["--workers", "0"], 2, ["--workers 0", "1 or more"]),
        (["slide.tif"], 2, ["tile-infer bench takes options alone, so slide.tif cannot follow"]),
    ],
)
def test_what_cannot_be_measured_is_told_in_one_line(
    run: Run, bright: Path, tokens: list[str], code: int, parts: list[str]
) -> None:
    done = run("bench", "--model", bright, *tokens)
    assert (done.code, done.out) == (code, "")
    (line,) = done.err.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
