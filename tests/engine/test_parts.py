"""Parts of a run, side by side or one after the other, leave the bytes of one run."""

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tile_infer import OutputError, Plan, Progress, SettingError, plan_prediction, predict_large
from tile_infer.engine.finish import finish
from tile_infer.engine.part import Part

from ..exactness.run_plan import tree
from ..exactness.seeded_networks import export, seeded, textured
from .test_lock import dead_process, lock_of

OPTIONS: dict[str, Any] = {"workers": 1, "tile": (188, 220), "backend": "onnx"}
COUNT = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of many blocks in a row, a network, and the mask of one run."""
    found = tmp_path_factory.mktemp("parts")
    pixels = textured(30, 26000)[:, :, 0]
    tifffile.imwrite(found / "slide.tif", pixels, tile=(64, 256), compression="zlib")
    export(seeded(2, 0, classes=3), found / "net.onnx", 1)
    run(found, found / "whole.zarr")
    return found


def run(folder: Path, out: Path, **options: Any) -> Any:
    return predict_large(
        folder / "slide.tif", folder / "net.onnx", out, verify=0, **OPTIONS, **options
    )


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    made = plan_prediction(folder / "slide.tif", folder / "net.onnx", **OPTIONS)
    assert made.grid.blocks >= 3 * COUNT
    return made


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 17, 1000])
def test_each_block_is_in_one_part(folder: Path, count: int) -> None:
    plan = plan_prediction(np.zeros((9000, 16000), np.uint8), folder / "net.onnx", **OPTIONS)
    assert plan.grid.y.blocks > 4
    assert plan.grid.x.blocks > 4
    parts = [Part(number, count).blocks(plan) for number in range(count)]
    assert sorted(block for part in parts for block in part) == list(range(plan.grid.blocks))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= max(1, plan.grid.blocks // (4 * count))
    order = plan.strips.order(plan.grid, range(plan.grid.blocks))
    assert all(list(part) == sorted(part, key=order.index) for part in parts)


@pytest.mark.parametrize("text", ["4/4", "1", "-1/4", "a/b", "0/0", "1/2/3", "", "1.5/4"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="use i/n with i from 0 to n - 1"):
        Part.of(text)


def test_parts_one_after_the_other_leave_the_bytes_of_one_run(
    folder: Path, tmp_path: Path, plan: Plan
) -> None:
    out = tmp_path / "mask.zarr"
    for number in (2, 0, 3):
        done = run(folder, out, part=f"{number}/{COUNT}")
        assert done.report["blocks_run"] == len(Part(number, COUNT).blocks(plan))
    with pytest.raises(OutputError, match=r"lacks \d+ of \d+ blocks \(.*\); run the parts again"):
        finish(out)
    assert not tree(out).keys() >= tree(folder / "whole.zarr").keys()
    assert run(folder, out, part=f"0/{COUNT}").report["blocks_run"] == 0
    run(folder, out, part=f"1/{COUNT}")
    finished = finish(out)
    assert finished.report["blocks_run"] == 0
    assert tree(out) == tree(folder / "whole.zarr")
    classes = run(folder, folder / "whole.zarr").report["classes"]
    assert finished.report["classes"] == classes
    assert finish(out).report["classes"] == classes


def test_parts_in_four_processes_at_once_leave_the_bytes_of_one_run(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mask.zarr"
    code = "import sys; from tile_infer.cli.main import main; sys.exit(main())"
    options = ["--workers", "1", "--tile", "188x220", "--backend", "onnx", "--out", str(out)]
    command = [sys.executable, "-c", code, "slide.tif", "--model", "net.onnx", *options]
    jobs = [
        subprocess.Popen(
            [*command, "--part", f"{number}/{COUNT}"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(COUNT)
    ]
    ended = [job.communicate(timeout=300) for job in jobs]
    assert [job.returncode for job in jobs] == [0] * COUNT, ended
    finish(out)
    assert tree(out) == tree(folder / "whole.zarr")


def test_without_a_part_what_the_parts_left_is_made(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    run(folder, out, part=f"1/{COUNT}")
    rest = run(folder, out)
    assert 0 < rest.report["blocks_run"] < rest.plan.grid.blocks
    assert tree(out) == tree(folder / "whole.zarr")
    assert run(folder, out, part=f"0/{COUNT}").report["blocks_run"] == 0


def test_more_parts_than_blocks(folder: Path, tmp_path: Path, plan: Plan) -> None:
    out, count = tmp_path / "mask.zarr", plan.grid.blocks + 5
    idle = run(folder, out, part=f"{count - 1}/{count}")
    assert idle.report["blocks_run"] == 0
    assert all(row["pixels"] == 0 for row in idle.report["classes"])
    assert run(folder, out, part=f"0/{count}").report["blocks_run"] == 1


@pytest.mark.parametrize("damage", ["chunk", "half a chunk", "record"])
def test_what_went_missing_is_noticed_at_the_end(folder: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "mask.zarr"
    for number in range(2):
        run(folder, out, part=f"{number}/2")
    file = out / ("tile_infer/records/c/3/0" if damage == "record" else "0/c/0/2")
    if damage == "half a chunk":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    with pytest.raises(OutputError, match=r"lacks 1 of \d+ blocks \(\d+\)"):
        finish(out)
    assert sum(run(folder, out, part=f"{n}/2").report["blocks_run"] for n in range(2)) == 1
    finish(out)
    assert tree(out) == tree(folder / "whole.zarr")


def test_a_part_leaves_alone_what_others_are_writing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    run(folder, out, part="0/2")
    file = out / "0/c/0/0.0a1b0a1b0a1b0a1b0a1b0a1b0a1b0a1b.partial"
    file.write_bytes(b"half")
    run(folder, out, part="1/2")
    assert file.exists()
    finish(out)
    assert not file.exists()
    assert tree(out) == tree(folder / "whole.zarr")


def during(call: Callable[[], object]) -> Callable[[Progress], None]:
    """Return what calls something once while a run is at work."""
    called = list[bool]()

    def on_progress(progress: Progress) -> None:
        if not called:
            called.append(True)
            call()

    return on_progress


def test_parts_run_side_by_side_and_nothing_else_does(folder: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "mask.zarr", list[str]()

    def meanwhile() -> None:
        assert run(folder, out, part="1/3").report["blocks_run"] > 0
        for refused in ({}, {"part": "0/3"}, {"part": "0/2"}):
            with pytest.raises(OutputError, match=r"part 0/3 of .*wait until it has ended"):
                run(folder, out, **refused)
        with pytest.raises(OutputError, match="part 0/3 of"):
            finish(out)
        seen.append("parts")

    run(folder, out, part="0/3", on_progress=during(meanwhile))

    def while_whole() -> None:
        with pytest.raises(OutputError, match=r"mask\.zarr is being written by process"):
            run(folder, out, part="2/3")
        seen.append("whole")

    run(folder, out, on_progress=during(while_whole))
    assert seen == ["parts", "whole"]
    assert not list(out.rglob("lock*"))
    assert tree(out) == tree(folder / "whole.zarr")


def test_locks_of_dead_processes_exclude_nobody_and_those_of_other_hosts_do(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mask.zarr"
    here, there = socket.gethostname(), "elsewhere"
    lock = lock_of(out, here, dead_process())
    run(folder, out, part="0/2")
    part = lock.with_name("lock.1-of-2")
    part.write_text(f"{dead_process()}\n{here}\n")
    run(folder, out, part="1/2")
    part.write_text(f"{dead_process()}\n{here}\n")
    finish(out)
    part.write_text(f"{dead_process()}\n{there}\n")
    with pytest.raises(OutputError, match=r"part 1/2 of .* of elsewhere; .*break_lock=True"):
        finish(out)
    finish(out, break_lock=True)
    assert not list(out.rglob("lock*"))


def test_a_part_that_would_lose_what_others_made_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    with pytest.raises(SettingError, match=r"overwrite contradict.*; delete .*mask.zarr first"):
        run(folder, out, part="0/2", overwrite=True)
    with pytest.raises(SettingError, match=r"not seen by the other processes; give out=PATH"):
        predict_large(np.zeros((9, 9), np.uint8), folder / "net.onnx", part="0/2")
    assert not out.exists()


def test_parts_of_other_settings_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    run(folder, out, part="0/2")
    before = tree(out)
    with pytest.raises(OutputError, match="output: labels then, logits now"):
        run(folder, out, part="1/2", output="logits")
    assert tree(out) == before


@pytest.mark.parametrize("name", ["nothing", "a folder"])
def test_what_is_no_mask_cannot_be_finished(tmp_path: Path, name: str) -> None:
    place = tmp_path / "mask.zarr"
    if name == "a folder":
        place.mkdir()
        (place / "file").write_text("")
    with pytest.raises(OutputError, match="is no mask"):
        finish(place)
