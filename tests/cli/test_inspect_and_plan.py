import json
from pathlib import Path

import numpy as np

from .conftest import Run, Write


def test_inspect_prints_the_measured_sizes_as_a_table(run: Run, same_padded_mean: Path) -> None:
    done = run("inspect", same_padded_mean)
    assert (done.code, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["verdict", "bounded:", "can", "be", "tiled", "exactly"] in rows
    assert ["period", "1", "1"] in rows
    assert ["margin", "0", "+", "0", "0", "+", "0"] in rows
    assert ["halo", "1", "+", "1", "1", "+", "1"] in rows


def test_inspect_json_has_the_keys_that_programs_rely_on(run: Run, same_padded_mean: Path) -> None:
    done = run("inspect", same_padded_mean, "--json", "--quiet")
    assert done.code == 0
    found = json.loads(done.out)
    assert set(found) >= {
        "input",
        "output",
        "margin",
        "period",
        "step",
        "halo",
        "verdict",
        "bounded",
        "free_size",
    }
    assert found["input"] == [None, 1, None, None]
    assert found["halo"] == {"before": [1, 1], "after": [1, 1]}
    assert (found["verdict"], found["bounded"], found["free_size"]) == ("bounded", True, True)


def test_inspect_says_why_a_network_cannot_be_tiled(run: Run, whole_tile: Path) -> None:
    done = run("inspect", whole_tile)
    assert done.code == 0
    assert "unbounded: every pixel of a tile influences every other" in done.out
    assert "disagreement" in done.out
    assert json.loads(run("inspect", whole_tile, "--json").out)["bounded"] is False


def test_a_head_that_is_not_there_is_wrong_usage(run: Run, bright: Path) -> None:
    done = run("inspect", bright, "--head", "nose")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "nose" in done.err
    assert "logits" in done.err


def test_plan_runs_nothing_and_writes_nothing(
    run: Run, image: Write, bright: Path, tmp_path: Path
) -> None:
    path = image()
    before = sorted(tmp_path.iterdir())
    done = run("plan", path, "--model", bright)
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0][:6] == ["image", "slide.tif,", "40", "x", "60", "px,"]
    assert ["mask", "exact"] in rows
    assert done.err.startswith("note: ")
    assert sorted(tmp_path.iterdir()) == before


def test_plan_json_has_the_keys_that_programs_rely_on(
    run: Run, image: Write, same_padded_mean: Path
) -> None:
    path = image("slide.tif", np.zeros((300, 500), np.uint8))
    done = run("plan", path, "--model", same_padded_mean, "--json", "--tile", "64x128")
    assert done.code == 0
    found = json.loads(done.out)
    assert set(found) >= {
        "tile",
        "core",
        "chunk",
        "block",
        "tiles",
        "blocks",
        "redundancy",
        "memory_bytes",
        "output_bytes",
    }
    assert found["tile"] == [64, 128]
    assert found["core"] == [62, 126]
    assert found["tiles"] == 5 * 4  # ceil(300 / 62) x ceil(500 / 126)
    assert found["output_bytes"] == 300 * 500


def test_plan_warns_where_tiles_must_be_blended(run: Run, image: Write, whole_tile: Path) -> None:
    done = run("plan", image(), "--model", whole_tile)
    assert done.code == 0
    assert "warning: whole cannot be tiled exactly" in done.err
    assert ["mask", "blended"] in [line.split() for line in done.out.splitlines()]
