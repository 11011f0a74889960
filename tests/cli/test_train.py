import csv
import json
from pathlib import Path

import imagecodecs
import numpy as np
import onnx
import pytest
import tifffile
import torch

from tile_infer import predict_large
from tile_infer.cli.interrupt import Interrupted
from tile_infer.cli.training_progress import TrainingReport
from tile_infer.engine.networks.checkpoint import load_checkpoint
from tile_infer.engine.training.progress import Progress

from .conftest import Run

SMALL = (
    *("--network", "unet", "--width", "4", "--tile", "204"),
    *("--steps", "4", "--validate-every", "2", "--threads", "1"),
)
ADAM = ("--optimizer", "adam", "--rate", "0.01")


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    random = np.random.default_rng(0)
    y, x = np.mgrid[:70, :90]
    for number in range(3):
        truth = np.zeros((70, 90), np.uint8)
        for centre in random.uniform(5, 65, (6, 2)):
            truth |= (np.hypot(y - centre[0], x - centre[1]) < 8).astype(np.uint8)
        image = (50 + 100 * truth + random.normal(0, 10, truth.shape)).astype(np.uint8)
        tifffile.imwrite(images / f"{number}.tif", image)
        (labels / f"{number}.png").write_bytes(imagecodecs.png_encode(truth * np.uint8(255)))
    return images, labels


def one_line(err: str) -> str:
    errors = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1, err
    return errors[0]


def test_images_smaller_than_a_tile_give_a_network_that_segments(
    run: Run, data: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run("train", *data, "--out", "discs.onnx", *SMALL, *ADAM)
    assert done.code == 0, done.err
    assert "paired by name" in done.err
    assert "step 4 of 4" in done.err
    assert "4 of 4 steps" in done.out
    assert "204 px in, 20 px out" in done.out
    stated = {entry.key: entry.value for entry in onnx.load("discs.onnx").metadata_props}
    said = json.loads(stated["tile_infer"])
    assert said["classes"] == ["background", "object"]
    every = np.concatenate([tifffile.imread(path).ravel() for path in data[0].iterdir()]) / 255
    assert said["mean"] == pytest.approx([every.mean()], rel=1e-5)
    assert said["std"] == pytest.approx([every.std()], rel=1e-5)
    mask = predict_large(data[0] / "0.tif", "discs.onnx", tmp_path / "mask.zarr")
    assert mask.plan.exact
    assert np.asarray(mask).shape == (70, 90)
    with Path("discs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    curves = imagecodecs.png_decode(Path("discs.png").read_bytes())
    assert curves.shape == (360, 900, 3)
    assert load_checkpoint("discs.pt").network == "unet"


def test_a_finished_training_is_not_repeated_and_an_unfinished_one_continued(
    run: Run, data: tuple[Path, Path]
) -> None:
    run("train", *data, "--out", "a.onnx", *SMALL, *ADAM, "--minutes", "0.00001")
    assert load_checkpoint("a.pt").training["step"] == 2
    assert Path("a.csv").read_text().count("\n") == 2
    assert Path("a.png").exists()
    continued = run("train", *data, "--out", "a.onnx", *SMALL, *ADAM)
    assert "continued after step 2" in continued.err
    run("train", *data, "--out", "b.onnx", *SMALL, *ADAM)
    one, other = load_checkpoint("a.pt").training["last"], load_checkpoint("b.pt").training["last"]
    assert all(torch.equal(part, other[name]) for name, part in one.items())
    written = Path("b.pt").stat().st_mtime_ns
    assert run("train", *data, "--out", "b.onnx", *SMALL, *ADAM).code == 0
    assert Path("b.pt").stat().st_mtime_ns == written
    Path("b.csv").unlink()
    assert "nothing was left to train" in run("train", *data, "--out", "b.onnx", *SMALL, *ADAM).err
    assert Path("b.csv").exists()
    fewer = run("train", *data, "--out", "b.onnx", *SMALL[:6], "--steps", "2", *SMALL[8:], *ADAM)
    assert "--steps 2 was passed already" in fewer.out + fewer.err
    refused = run("train", *data, "--out", "b.onnx", *SMALL, *ADAM, "--seed", "3")
    assert "--seed 0, not 3; give the same again, or use --overwrite" in one_line(refused.err)
    assert (
        run("train", *data, "--out", "b.onnx", *SMALL, *ADAM, "--seed", "3", "--overwrite").code
        == 0
    )


@pytest.mark.parametrize(
    ("change", "code", "parts"),
    [
        ("size", 1, ["images/1.tif has 70 x 90 px and", "labels/1.png 60 x 90"]),
        ("empty", 1, ["images: ", "holds no file"]),
        ("nowhere", 1, ["nowhere does not exist"]),
        ("lonely", 1, ["no image for ", "labels/1.png; add image"]),
        ("missing", 2, ["class 2 (cell) is missing in all 3 label images"]),
        ("unnamed", 2, ["classes are two or more names"]),
        ("alike", 2, ["each class needs a name of its own; got cell,cell"]),
        ("own classes", 2, ["option classes is what the labels say"]),
        ("folder", 1, ["n.csv is a folder"]),
        ("not a number", 1, ["images/1.tif has NaN or infinity"]),
        ("objects", 2, ["use --label-kind class or --label-kind instance"]),
        ("colours", 1, ["labels have one channel", "labels/1.png has 3"]),
        ("nan", 2, ["--rate nan is not possible"]),
    ],
)
def test_bad_input_is_told_in_one_line(
    run: Run, data: tuple[Path, Path], change: str, code: int, parts: list[str]
) -> None:
    images, labels = map(str, data)
    more: list[str] = []
    match change:
        case "size":
            (data[1] / "1.png").write_bytes(imagecodecs.png_encode(np.zeros((60, 90), np.uint8)))
        case "empty":
            for path in data[0].iterdir():
                path.unlink()
        case "nowhere":
            images = "nowhere"
        case "lonely":
            (data[0] / "1.tif").unlink()
        case "missing":
            more = ["--classes", "ground,wall,cell"]
        case "unnamed":
            more = ["--classes", "ground"]
        case "alike":
            more = ["--classes", "cell,cell"]
        case "own classes":
            more = ["--option", "classes=5"]
        case "folder":
            Path("n.csv").mkdir()
        case "not a number":
            tifffile.imwrite(data[0] / "1.tif", np.full((70, 90), np.nan, np.float32))
        case "objects":
            many = np.arange(70 * 90).reshape(70, 90) % 200
            (data[1] / "1.png").write_bytes(imagecodecs.png_encode(many.astype(np.uint8)))
        case "colours":
            colours = np.zeros((70, 90, 3), np.uint8)
            (data[1] / "1.png").write_bytes(imagecodecs.png_encode(colours))
        case "nan":
            more = ["--rate", "nan"]
    done = run("train", images, labels, "--out", "n.onnx", *SMALL, *more)
    assert done.code == code, done.err
    line = one_line(done.err)
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert not Path("n.onnx").exists()


def test_nothing_that_was_there_is_written_over(run: Run, data: tuple[Path, Path]) -> None:
    image, labels = Path("cells.png"), data[1] / "0.png"
    image.write_bytes(labels.read_bytes())
    for more in ((), ("--overwrite",)):
        done = run("train", image, labels, "--out", "cells.onnx", *SMALL, *more)
        assert done.code == 1
        assert "choose another place with --out" in one_line(done.err)
    assert image.read_bytes() == labels.read_bytes()
    Path("n.csv").write_text("mine")
    assert "n.csv exists" in one_line(run("train", *data, "--out", "n.onnx", *SMALL).err)
    Path("kept.pt").write_text("an older training")
    assert run("train", "nowhere", data[1], "--out", "kept.onnx", *SMALL, "--overwrite").code == 1
    assert Path("kept.pt").read_text() == "an older training"


def test_what_an_interruption_leaves_is_told(
    run: Run, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(step: int) -> None:
        def report(_: TrainingReport, progress: Progress) -> None:
            if progress.step == step:
                raise Interrupted(2)

        monkeypatch.setattr(TrainingReport, "__call__", report)

    interrupt(1)
    first = run("train", *data, "--out", "a.onnx", *SMALL)
    assert first.code == 130
    assert "no checkpoint was written yet; the same command begins anew" in first.err
    interrupt(3)
    second = run("train", *data, "--out", "a.onnx", *SMALL)
    assert "the last checkpoint is kept; the same command continues" in second.err


def test_a_rate_far_too_large_stops_in_one_line(run: Run, data: tuple[Path, Path]) -> None:
    wild = ("--optimizer", "sgd", "--rate", "1e30", "--validate-every", "1")
    done = run("train", *data, "--out", "n.onnx", *SMALL[:8], *wild)
    assert done.code == 1
    assert "use a smaller rate" in one_line(done.err)
    assert not Path("n.onnx").exists()
