import csv
from dataclasses import asdict
from pathlib import Path

import imagecodecs
import numpy as np

from tile_infer.engine.training.history import Row, write_csv, write_curves

NAN = float("nan")
ROWS = [Row(100 * k, 9.5 * k, 0.001, 1 / k, 1.1 / k, 1 - 0.5 / k, 0.4, 0.1) for k in range(1, 8)]


def coloured(path: Path, name: str) -> int:
    """Return how many pixels inside the axes have the colour of a curve."""
    picture = imagecodecs.png_decode(path.read_bytes())[40:310, 70:830].astype(int)
    colour = {"loss": (31, 87, 179), "validation": (220, 120, 20), "dice": (20, 140, 70)}[name]
    return int((np.abs(picture - colour).max(-1) < 8).sum())


def test_the_table_holds_every_figure(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ROWS)
    with (tmp_path / "a.csv").open() as file:
        read = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert read == [asdict(row) for row in ROWS]


def test_each_curve_is_drawn(tmp_path: Path) -> None:
    write_curves(tmp_path / "a.png", ROWS)
    assert min(coloured(tmp_path / "a.png", name) for name in ("loss", "validation", "dice")) > 500
    legend = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())[:40].astype(int)
    assert (np.abs(legend - (20, 140, 70)).max(-1) < 8).any()


def test_without_validation_images_the_loss_alone_is_drawn(tmp_path: Path) -> None:
    rows = [Row(row.step, row.seconds, row.rate, row.loss, NAN, NAN, NAN, NAN) for row in ROWS]
    write_curves(tmp_path / "a.png", rows)
    assert coloured(tmp_path / "a.png", "loss") > 500
    assert coloured(tmp_path / "a.png", "dice") == coloured(tmp_path / "a.png", "validation") == 0
    legend = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())[:40].astype(int)
    assert not (np.abs(legend - (20, 140, 70)).max(-1) < 8).any()
    write_csv(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open() as file:
        assert {row["dice"] for row in csv.DictReader(file)} == {""}
    write_curves(tmp_path / "none.png", [])
    assert coloured(tmp_path / "none.png", "loss") == 0


def test_a_falling_loss_falls_in_the_picture(tmp_path: Path) -> None:
    write_curves(tmp_path / "a.png", ROWS)
    picture = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())[40:310, 70:830].astype(int)
    y, x = np.nonzero(np.abs(picture - (31, 87, 179)).max(-1) < 8)
    assert np.corrcoef(x, y)[0, 1] > 0.8  # rows are counted from above
