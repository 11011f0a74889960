"""The sweep over odd files tells right from wrong."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
RNG = np.random.default_rng(0)
ABSOLUTE = re.compile(r"(?<![\w.])/\w+/")


@pytest.fixture
def odd_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("odd_files")
    for name in ("odd_files", "results_file", "returning_network", "tifffile_pixels"):
        sys.modules.pop(name, None)


def job(odd_files: ModuleType, file: Path, channels: int = 1) -> Any:
    network = file.with_name(f"in{channels}.onnx")
    odd_files.write_returning_network(network, channels)
    return odd_files.Job(file, file, channels, network, file.with_name("out.zarr"))


def write(path: Path, *shape: int, **options: Any) -> Path:
    pixels = RNG.integers(0, 256, shape, np.uint8)
    tifffile.imwrite(path, pixels, **options)
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_good_file_is_equal_with_what_its_refusals_ask_for(
    tmp_path: Path, odd_files: ModuleType, channels: int
) -> None:
    stack = write(tmp_path / "stack.tif", 4, 40, 60, photometric="minisblack")
    found = odd_files.sweep(job(odd_files, stack, channels))
    assert (found.kind, found.text) == ("equal", "")
    wanted = ("--page", "0") + (("--channels", "0,0,0") if channels == 3 else ())
    assert found.added == wanted


def test_refusal_is_kept_with_its_reason(tmp_path: Path, odd_files: ModuleType) -> None:
    inks = write(tmp_path / "inks.tif", 40, 60, 4, photometric="separated")
    found = odd_files.sweep(job(odd_files, inks))
    assert (found.kind, found.code) == ("refused", 1)
    assert "inks.tif holds inks (CMYK)" in found.text


def test_one_wrong_pixel_is_noticed(
    tmp_path: Path, odd_files: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write(tmp_path / "good.tif", 40, 60, 3, photometric="rgb")
    assert odd_files.sweep(job(odd_files, good, 3)).kind == "equal"
    right = odd_files.first_plane(good)
    right[7, 8, 2] ^= 1
    monkeypatch.setattr(odd_files, "first_plane", lambda _: right)
    found = odd_files.sweep(job(odd_files, good, 3))
    assert (found.kind, found.text) == ("wrong", "1 of 7200 values differ")


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (1, "error: a.tif is no image\n", "refused"),
        (1, "error: it is no image\n", "unclear"),
        (1, "error: a.tif is no image\nand more\n", "unclear"),
        (1, "error: internal error: a.tif\n", "unclear"),
        (2, "error: a.tif is no image\n", "unclear"),
        (1, "", "unclear"),
    ],
)
def test_only_one_line_that_names_the_file_is_a_clear_refusal(
    tmp_path: Path,
    odd_files: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    said: str,
    kind: str,
) -> None:
    monkeypatch.setattr(odd_files, "run_inside", lambda _: (code, said))
    assert odd_files.sweep(job(odd_files, tmp_path / "a.tif")).kind == kind


def test_command_that_takes_long_or_raises_is_noticed(
    tmp_path: Path, odd_files: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write(tmp_path / "good.tif", 40, 60)
    monkeypatch.setattr(odd_files, "SLOW_SECONDS", 0.0)
    assert odd_files.sweep(job(odd_files, good)).kind == "slow"
    monkeypatch.setattr(odd_files, "run_inside", lambda _: 1 / 0)
    assert odd_files.sweep(job(odd_files, good)).kind == "traceback"


@pytest.mark.parametrize("name", ["odd_files", "real_images"])
def test_results_hold_no_path_of_a_machine(name: str) -> None:
    text = (BENCHMARKS / "results" / f"{name}.json").read_text()
    assert not ABSOLUTE.search(text)
    assert ABSOLUTE.search(text.replace('": "', '": "/home/somebody/', 1))
