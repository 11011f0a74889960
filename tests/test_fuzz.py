"""The fuzzer damages files, notices what goes wrong, and finds nothing in a few of them."""

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
import tifffile

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
MODULES = ("fuzz", "guarded", "fuzz_tiff", "fuzz_network", "fuzz_tiff_files", "tiff_parts")
OTHERS = ("fuzz_network_files", "data_folder", "odd_files", "results_file", "tifffile_pixels")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in (*MODULES, *OTHERS, "returning_network"):
        sys.modules.pop(name, None)


def test_a_few_dozen_damaged_files_end_well(tmp_path: Path) -> None:
    # In a process of its own: it forks, and pytest has threads.
    result = BENCHMARKS / "results" / "fuzz_test.json"
    # Beside other tests and at the lowest priority, 20 s of the clock may be few of the CPU.
    patient = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import guarded
guarded.HUNG_SECONDS = 200.0
import fuzz
fuzz.main()
"""
    line = [sys.executable, "-c", patient, "--files", "24", "--networks", "12"]
    try:
        done = subprocess.run([*line, "--result", result.stem], capture_output=True, text=True)
        figures = json.loads(result.read_text())
    finally:
        result.unlink(missing_ok=True)
    assert (done.returncode, done.stderr) == (0, "")
    for part, count in (("images", 24), ("networks", 12)):
        found = figures[part]
        assert found["runs"] == sum(found["outcomes"].values()) == count
        assert found["undamaged_runs"] == count
        assert sum(sum(kinds.values()) for kinds in found["by_damage"].values()) == count
        assert found["failed"] == {}
        assert 0 < found["peak_resident_mb"] < 2048


def test_the_same_seed_does_the_same_damage(scripts: dict[str, Any], tmp_path: Path) -> None:
    image, *_ = scripts["fuzz_tiff_files"].write_tiffs(tmp_path / "tiffs")
    data = image.read_bytes()
    found = {
        (seed, n): scripts["fuzz_tiff"].damaged(data, np.random.default_rng((seed, n)))
        for seed in (1, 2)
        for n in range(40)
    }
    for seed, n in ((1, 3), (2, 30)):
        again = scripts["fuzz_tiff"].damaged(data, np.random.default_rng((seed, n)))
        assert again == found[seed, n]
    assert len({changed for changed, _ in found.values()}) > 70
    assert len({kind for _, kind in found.values()}) > 12


def test_directories_and_segments_are_found(scripts: dict[str, Any], tmp_path: Path) -> None:
    for path in scripts["fuzz_tiff_files"].write_tiffs(tmp_path / "tiffs"):
        data = path.read_bytes()
        parts = scripts["tiff_parts"].directories(data)
        with tifffile.TiffFile(path) as file:
            first = file.pages.first
            entries = {(tag.offset, tag.code, tag.count) for tag in first.tags.values()}
            assert entries <= {(e.at, e.tag, e.values) for e in parts.entries}
            assert set(first.dataoffsets) <= {at for at, _ in scripts["tiff_parts"].segments(data)}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("print('error: wrong'); code = 1", "refused"),
        ("code = 0", "done"),
        ("print('error: one\\nerror: two'); code = 1", "unclear"),
        ("print('error: internal error: odd'); code = 1", "unclear"),
        ("code = 3", "unclear"),
        ("import os; os.abort()", "crashed"),
        ("import ctypes; ctypes.string_at(0)", "crashed"),
        ("import time; time.sleep(60)", "hung"),
        ("bytearray(b'1') * (900 << 20); code = 0", "memory"),
        ("kept = bytearray(b'1') * (900 << 20); import time; time.sleep(60)", "memory"),
    ],
)
def test_what_goes_wrong_is_noticed(
    scripts: dict[str, Any], tmp_path: Path, body: str, kind: str
) -> None:
    # Forked from a process without threads.
    program = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import guarded
from pathlib import Path

def main(line):
    found = {{"code": None}}
    exec({body!r}, found)
    return found["code"]

guarded.program.main = main
guarded.HUNG_SECONDS, guarded.MOST_RESIDENT_BYTES = 5.0, 600 << 20
for number, outcome in guarded.run_all([lambda: ["x"]], Path({str(tmp_path)!r})):
    print(number, outcome.kind)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"0 {kind}\n", "")
