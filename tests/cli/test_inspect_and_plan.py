import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Run, Write, write_network


def test_inspect_prints_the_measured_sizes_as_a_table(run: Run, same_padded_mean: Path) -> None:
    done = run("inspect", same_padded_mean)
    assert (done.code, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["verdict", "bounded:", "can", "be", "tiled", "exactly"] in rows
    assert ["period", "1", "1"] in rows
    assert ["margin", "0", "+", "0", "0", "+", "0"] in rows
    assert ["halo", "1", "+", "1", "1", "+", "1"] in rows
    assert [row[1] for row in rows if row[:1] == ["output"]] == ["name", "px"]
    assert ["classes", "2"] in rows


def test_inspect_counts_a_list_of_channels(run: Run, tmp_path: Path) -> None:
    model = write_network(tmp_path / "three.onnx", np.ones((2, 3, 1, 1)), (0.5, 0.0))
    for channels in ("3", "0,1,2", "2,1,0"):
        assert run("inspect", model, "--channels", channels).code == 0
    assert run("inspect", model, "--channels", "0,1").code == 2


def test_one_channel_makes_two_classes(run: Run, tmp_path: Path) -> None:
    model = write_network(tmp_path / "one.onnx", np.ones((1, 1, 1, 1)), (0.5,))
    assert "2 (one channel, above and below a threshold)" in run("inspect", model).out


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
    rows = [line.split() for line in done.out.splitlines()]
    assert all([name, "-", "-"] in rows for name in ("margin", "halo", "period"))
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
    assert ["mask", "40", "x", "60", "px,", "exact"] in rows
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
        "disk_bytes",
    }
    assert found["tile"] == [64, 128]
    assert found["core"] == [62, 126]
    assert found["tiles"] == 5 * 4  # ceil(300 / 62) x ceil(500 / 126)
    assert found["output_bytes"] == 300 * 500
    assert 0 < found["disk_bytes"] < 2 << 20


def test_plan_warns_where_tiles_must_be_blended(run: Run, image: Write, whole_tile: Path) -> None:
    done = run("plan", image(), "--model", whole_tile)
    assert done.code == 0
    assert "warning: whole cannot be tiled exactly" in done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ["mask", "40", "x", "60", "px,", "blended"] in rows


def test_plan_tells_the_sizes_of_image_and_mask_apart(
    run: Run, image: Write, halving: Path
) -> None:
    done = run("plan", image(), "--model", halving)
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert rows[0].startswith("image slide.tif, 40 x 60 px,")
    assert "mask 20 x 30 px, exact" in rows
    assert any(row.startswith("tile ") and "for 20 x 30 px of the mask" in row for row in rows)


def test_inspect_refuses_channels_that_the_network_does_not_take(
    run: Run, same_padded_mean: Path
) -> None:
    done = run("inspect", same_padded_mean, "--channels", "3")
    assert (done.code, done.out) == (2, "")
    assert "--channels 3 is not possible" in done.err
    assert "takes 1" in done.err


def test_inspect_names_the_part_that_it_comes_from(run: Run, whole_tile: Path) -> None:
    lines = [line.split() for line in run("inspect", whole_tile).out.splitlines()]
    assert ["because", "of", "GlobalAveragePool"] in lines
    found = json.loads(run("inspect", whole_tile, "--json").out)
    assert found["tile_dependent"] == ["GlobalAveragePool"]


def test_a_file_that_can_run_code_needs_trust(run: Run, image: Write, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pt2"
    program = torch.export.export(torch.nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 64, 64),))
    torch.export.save(program, path)
    for command in (["inspect", path], ["plan", image(), "--model", path]):
        refused = run(*command)
        assert refused.code == 2
        assert len(refused.err.splitlines()) == 1
        assert "use --trust-model if you trust where it comes from" in refused.err
        assert run(*command, "--trust-model").code == 0
    assert run(image(), "--model", path, "--out", tmp_path / "mask.zarr").code == 2
    assert not (tmp_path / "mask.zarr").exists()
    assert run(image(), "--model", path, "--trust-model", "--quiet").code == 0
    assert (tmp_path / "slide.net.zarr").exists()


def test_inspect_says_how_a_module_of_a_file_ends(run: Run, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Softmax(1))
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 64, 64),)), path)
    assert "ends in softmax" in run("inspect", path, "--trust-model").out
