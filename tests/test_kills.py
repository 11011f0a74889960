"""The script that kills runs resumes them, and notices what must not happen."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = ("kills", "memory", "balanced", "generated_image", "results_file")


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("kills")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def job(kills: ModuleType, tmp_path: Path) -> Any:
    plan = {"blocks": 12, "shape": [1600, 9000], "chunk": [768, 768], "block": [1536, 1536]}
    return kills.Job([], tmp_path / "whole.zarr", {"plan": {**plan, "workers": 2}})


def test_a_few_kills_leave_the_bytes_of_a_run_that_nobody_stopped() -> None:
    result = BENCHMARKS / "results" / "kills_test.json"
    line = [sys.executable, str(BENCHMARKS / "kills.py"), "--kills", "3", "--asked", "1"]
    try:
        done = subprocess.run(
            [*line, "--columns", "6", "--result", result.stem], capture_output=True, text=True
        )
        found = json.loads(result.read_text())
    finally:
        result.unlink(missing_ok=True)
    assert (done.returncode, found["failed"]) == (0, [])
    stops = {name: places["in_all"] for name, places in found["stops"].items()}
    assert stops == {"SIGKILL": 3, "SIGTERM": 1, "SIGINT": 1}
    assert found["blocks"] == 12
    assert (found["hangs"], found["bytes_differing"]) == (0, 0)
    assert found["masks_completed"] >= 1
    assert found["files_compared"] > 60 * found["masks_completed"]
    assert found["processes"] == found["masks_completed"] + 5
    assert found["blocks_written_again_after_a_stop"]["SIGKILL"]["most"] <= 3


def test_the_same_seed_draws_the_same_moments(kills: ModuleType) -> None:
    def drawn(seed: int, left: int = 100) -> list[Any]:
        rng = np.random.default_rng(seed)
        return [kills.draw(rng, kills.KILL, left, 192) for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    between = [moment for moment in drawn(1) if 0 < moment.chunks < 100]
    assert len(between) > 150
    assert len({moment.chunks for moment in between}) > 20
    assert 50 < sum(moment is None for moment in drawn(1, left=0)) < 150


def write(mask: Path, *files: str) -> None:
    for name in files:
        path = mask / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"some")


def test_blocks_that_are_half_written_or_written_again_are_found(
    kills: ModuleType, job: Any, tmp_path: Path
) -> None:
    mask, plan = tmp_path / "mask.zarr", job.report["plan"]
    write(mask, "0/c/0/0", "0/c/1/1", "0/c/2/3", "0/c/0/7", "1/c/0/0", "tile_infer/records/c/0/0")
    write(mask, f"0/c/0/9.{'0a' * 16}.partial")
    before = kills.look(mask, plan)
    assert (before.recorded, before.chunks, before.cut) == ({0}, 4, 1)
    assert before.written.keys() == {0, 3, 7}
    assert kills.written_again(before, kills.look(mask, plan)) == set()
    (mask / "0/c/0/7").unlink()
    write(mask, "0/c/2/3.new", "0/c/2/2")
    (mask / "0/c/2/3.new").replace(mask / "0/c/2/3")
    assert kills.written_again(before, kills.look(mask, plan)) == {3, 7}


def test_every_byte_and_file_that_differs_is_counted(kills: ModuleType, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        write(folder, "zarr.json", "0/c/0")
    assert kills.differing_bytes(one, other) == (2, 0)
    (other / "0/c/0").write_bytes(b"come on")
    assert kills.differing_bytes(one, other) == (2, 1 + 3)
    write(one, "tile_infer/lock")
    (other / "zarr.json").unlink()
    assert kills.differing_bytes(one, other) == (3, 1 + 3 + 2)


BEGINS_ANEW = """
import sys
from pathlib import Path
from time import sleep

mask = Path(sys.argv[-3])

def write(name):
    (mask / name).parent.mkdir(parents=True, exist_ok=True)
    (mask / "new").write_text("some")
    (mask / "new").replace(mask / name)

for block in range(6):
    for array in ("probabilities/c/0", "0/c"):
        write(f"{array}/0/{2 * block}")
        write(f"{array}/0/{2 * block + 1}")
    write(f"tile_infer/records/c/{block}/0")
    sleep(0.1)
"""


@pytest.mark.parametrize(
    ("program", "noticed"),
    [
        ("import time; time.sleep(60)", "a process hung"),
        ("import sys; sys.exit('error: broken')", "exit code 1: error: broken"),
        (BEGINS_ANEW, "a block that was recorded was run again"),
    ],
)
def test_what_must_not_happen_is_noticed(
    kills: ModuleType,
    job: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    noticed: str,
) -> None:
    monkeypatch.setattr(kills, "PROGRAM", [sys.executable, "-c", program])
    monkeypatch.setattr(kills, "HUNG_SECONDS", 3.0)
    monkeypatch.setattr(kills, "MOST_FAILURES", 1)
    monkeypatch.setattr(kills, "draw", lambda *_: kills.Moment(4, 0.0))
    tally = kills.stop_and_resume(job, tmp_path, [kills.KILL] * 2, np.random.default_rng(0))
    assert tally.failed == [f"mask 0: {noticed}"]
    assert tally.hangs == ("hung" in noticed)
