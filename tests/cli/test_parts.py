"""Parts of a mask from the command line."""

from pathlib import Path

import numpy as np
import pytest

from .conftest import Run, Write
from .test_usage import assert_one_error

PIXELS = np.random.default_rng(0).integers(0, 255, (1500, 2100), np.uint8)


def test_two_parts_and_the_end(run: Run, image: Write, bright: Path) -> None:
    image(pixels=PIXELS)
    for number in range(2):
        done = run("slide.tif", "--model", bright, "--part", f"{number}/2")
        assert done.code == 0, done.err
        rows = [" ".join(line.split()) for line in done.out.splitlines()]
        assert f"part {number}/2: 3 of 6 blocks" in rows
        assert "then tile-infer finish slide.bright.zarr, when all 2 parts are done" in rows
    done = run("finish", "slide.bright.zarr")
    assert done.code == 0, done.err
    assert done.out.startswith("slide.bright.zarr\n")
    assert "1500 x 2100 px" in done.out
    whole = run("slide.tif", "--model", bright)
    assert "already complete" in whole.out


def test_an_end_before_its_parts_is_refused(run: Run, image: Write, bright: Path) -> None:
    image(pixels=PIXELS)
    run("slide.tif", "--model", bright, "--part", "0/2")
    done = run("finish", "slide.bright.zarr")
    assert done.code == 1
    assert_one_error(done.err, "slide.bright.zarr lacks 3 of 6 blocks")


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (["--part", "2/2"], ["--part 2/2", "use i/n"]),
        (["--part", "half"], ["--part half", "use i/n"]),
        (["--part", "0/2", "--also", ".tif"], ["--also needs the whole mask", "without --part"]),
        (["--part", "0/2", "--report", "r.json"], ["--report needs the whole mask"]),
    ],
)
def test_wrong_parts_are_told_before_anything_is_opened(
    run: Run, tmp_path: Path, tokens: list[str], parts: list[str]
) -> None:
    done = run("missing.tif", "--model", "missing.onnx", *tokens)
    assert done.code == 2
    assert_one_error(done.err, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_part_does_not_overwrite(run: Run, image: Write, bright: Path, tmp_path: Path) -> None:
    before = {image(), bright}
    done = run("slide.tif", "--model", bright, "--part", "0/2", "--overwrite")
    assert done.code == 2
    assert_one_error(done.err, "--part and --overwrite contradict", "delete slide.bright.zarr")
    assert {*tmp_path.iterdir()} == before


def test_the_mend_told_for_a_lock_of_another_host_works(
    run: Run, image: Write, bright: Path, tmp_path: Path
) -> None:
    image()
    command = ["slide.tif", "--model", bright, "--part", "0/1"]
    assert run(*command).code == 0
    (tmp_path / "slide.bright.zarr/tile_infer/lock.0-of-1").write_text("1\nelsewhere\n")
    done = run(*command)
    assert done.code == 1
    assert_one_error(done.err, "by process 1 of elsewhere")
    mend = done.err.rpartition(" give ")[2].split()
    assert run(*command, *mend).code == 0
