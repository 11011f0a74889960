from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from tile_infer.cli.demo_picture import outlined
from tile_infer.cli.palette import class_colours

from .conftest import Run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demo be small."""
    monkeypatch.setattr("tile_infer.cli.demo.SLIDE_PX", (512, 512))
    monkeypatch.setattr("tile_infer.cli.demo_picture.SHOWN_PLACE", (100, 50))
    monkeypatch.setattr("tile_infer.cli.demo_picture.PANEL_PX", 300)


@pytest.mark.usefixtures("small")
def test_the_demo_finds_the_nuclei_and_draws_them(run: Run) -> None:
    done = run("demo", "here")
    assert done.code == 0
    score = next(line.split()[1] for line in done.out.splitlines() if "Dice" in line)
    assert float(score) >= 0.85  # a small corner of the slide; the whole one has 0.90 and more
    slide = tifffile.imread("here/tissue.tif")
    truth = tifffile.imread("here/tissue_truth.tif")
    assert (slide.shape, truth.shape) == ((512, 512, 3), (512, 512))
    picture = imagecodecs.png_decode(Path("here/demo.png").read_bytes())
    assert picture.shape == (300 + 2 * 36, 2 * 300 + 3 * 36, 3)
    assert (picture[:30] == 255).all()
    assert (picture == class_colours(2)[1]).all(axis=2).sum() > 100


@pytest.mark.usefixtures("small")
def test_the_demo_can_be_run_again(run: Run) -> None:
    first = run("demo")
    assert first.code == 0
    again = run("demo")
    assert again.code == 0
    assert "already complete" in again.out
    assert "making a slide" in first.err
    assert "making a slide" not in again.err
    afresh = run("demo", "--overwrite")
    assert "already complete" not in afresh.out
    assert "making a slide" in afresh.err


@pytest.mark.usefixtures("small")
def test_a_demo_that_was_stopped_while_making_the_slide_makes_it_again(run: Run) -> None:
    Path("demo").mkdir()
    Path("demo/tissue_truth.tif").write_bytes(b"half")
    Path("demo/tissue.partial.tif").write_bytes(b"half")
    assert run("demo").code == 0
    assert not Path("demo/tissue.partial.tif").exists()


def test_a_demo_folder_that_cannot_be_made_is_told_in_one_line(run: Run) -> None:
    Path("demo").write_text("mine")
    assert run("demo", "demo/deeper").code == 1
    done = run("demo")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "use tile-infer demo --model MODEL" in done.err
    assert Path("demo").read_text() == "mine"


def test_an_outline_runs_inside_its_region_and_nowhere_else() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    picture = outlined(np.full((20, 20, 3), 100, np.uint8), labels, 3)
    line = (picture == class_colours(2)[1]).all(axis=2)
    assert line[15, 20]
    assert line[44, 30]
    assert not line[14, 20]
    assert not line[30, 30]
    assert (picture[~line] == 100).all()
