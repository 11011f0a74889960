import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from .conftest import Run


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    truth = np.zeros((40, 60), np.uint8)
    truth[5:15, 5:15] = truth[25:35, 40:50] = 255
    mask = np.zeros_like(truth)
    mask[5:15, 5:17] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    return tmp_path / "mask.tif", tmp_path / "truth.tif"


def test_the_measures_are_printed(run: Run, files: tuple[Path, Path]) -> None:
    done = run("score", *files)
    assert (done.code, done.err) == (0, "")
    head, row = (line.split() for line in done.out.splitlines()[:2])
    values = dict(zip(head[1:], row[-len(head) + 1 :], strict=True))
    assert values["Dice"] == values["F1"] == f"{200 / 320:.4f}"
    assert values["IoU"] == f"{100 / 220:.4f}"
    assert values["sensitivity"] == "0.5000"
    assert values["specificity"] == f"{2180 / 2200:.4f}"
    assert f"{120 / 2400:.4f}" in done.out
    assert "F1 0.6667 at IoU 0.5: 1 of 2 found, 1 in the mask" in done.out


def test_the_figures_are_printed_for_programs(run: Run, files: tuple[Path, Path]) -> None:
    done = run("score", *files, "--json", "--min-size", "101")
    figures = json.loads(done.out)
    assert figures["pixel_error"] == 120 / 2400
    (only,) = figures["classes"]
    assert only["f2"] == pytest.approx(500 / (500 + 4 * 100 + 20))
    expected = {"f1": 0.0, "true_positives": 0, "false_positives": 1, "false_negatives": 0}
    assert only["objects"] == expected
    assert (
        "objects"
        not in json.loads(run("score", *files, "--json", "--no-objects").out)["classes"][0]
    )


def test_what_cannot_be_scored_is_one_line(run: Run, files: tuple[Path, Path]) -> None:
    missing = run("score", files[0], "absent.tif")
    assert missing.code == 1
    assert missing.err.strip() == "error: absent.tif does not exist; check the path"
    three = run("score", *files, files[0])
    assert three.code == 2
    assert "takes one mask and one truth" in three.err
    numbers = np.arange(2400, dtype=np.uint16).reshape(40, 60)
    tifffile.imwrite("numbers.tif", numbers)
    many = run("score", files[0], "numbers.tif")
    assert many.code == 2
    assert "use --truth instance" in many.err
