"""A run that does not fit is refused at once, in the words of the command line."""

from pathlib import Path

import numpy as np
import pytest

from .conftest import Run, Write

LARGE = np.zeros((1100, 1000), np.uint8)

CASES = [
    (["--memory", "900TB"], r"--memory 900.0 TB is more than the "),
    (["--max-output", "1MB"], "the mask has 1.0 MB before compression, above --max-output 1.0 MB"),
]


@pytest.mark.parametrize(("options", "message"), CASES)
def test_what_does_not_fit_is_refused_with_both_numbers_and_writes_nothing(
    run: Run, image: Write, bright: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    path = image("slide.tif", LARGE)
    before = {*tmp_path.iterdir()}
    for out in ([], ["--out", "deep/mask.zarr"]):
        done = run(path, "--model", bright, *options, *out)
        assert done.code == 2
        assert done.err.splitlines()[-1].startswith(f"error: {message}")
        assert {*tmp_path.iterdir()} == before
    fits = run(path, "--model", bright, options[0], "500MB")
    assert fits.code == 0, fits.err


@pytest.mark.parametrize(("options", "message"), CASES)
def test_a_plan_says_that_its_run_would_be_refused(
    run: Run, image: Write, bright: Path, options: list[str], message: str
) -> None:
    done = run("plan", image("slide.tif", LARGE), "--model", bright, *options)
    assert done.code == 0
    assert f"warning: the run would be refused: {message}" in done.err
    fits = run("plan", "slide.tif", "--model", bright, options[0], "500MB")
    assert "refused" not in fits.err
    rows = [" ".join(line.split()) for line in fits.out.splitlines()]
    assert any(row.startswith("disk ") and row.endswith("MB at most") for row in rows)


def test_another_limit_continues_the_same_mask(run: Run, image: Write, bright: Path) -> None:
    path = image("slide.tif", LARGE)
    assert run(path, "--model", bright, "--max-output", "20GB").code == 0
    again = run(path, "--model", bright, "--max-output", "1MB")
    assert again.code == 0
    assert "already complete" in again.out
    assert "warning" not in again.err
