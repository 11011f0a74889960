"""How a training went: its figures as a CSV file and as a picture."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..exports.whole_file import whole_file

_SIZE_PX = (900, 360)
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 60, 60, 30, 40
_LOSS, _VALIDATION, _DICE = (31, 87, 179), (220, 120, 20), (20, 140, 70)


@dataclass(frozen=True, slots=True)
class Row:
    """The figures at one look at the validation images; NaN where there are none."""

    step: int
    """Steps so far."""
    seconds: float
    """Time so far, of all runs together."""
    rate: float
    """Learning rate."""
    loss: float
    """Mean loss of the tiles since the row before."""
    validation_loss: float
    """Mean cross-entropy of a validation pixel, unweighted."""
    dice: float
    """Mean Dice of the classes but the background."""
    iou: float
    """Mean IoU of the classes but the background."""
    pixel_error: float
    """Share of wrong pixels."""


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write one line per row, the names of the figures first.

    Raises:
        OutputError: The file cannot be written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    table.writeheader()
    for row in rows:
        # An empty cell is what spreadsheets take for "not measured".
        table.writerow({key: "" if value != value else value for key, value in asdict(row).items()})
    with whole_file(path) as file:
        file.write(text.getvalue().encode())


def write_curves(path: Path, rows: Sequence[Row]) -> None:
    """Draw losses (left axis, logarithmic) and Dice (right axis, 0 to 1) over the steps, as a PNG.

    Raises:
        OutputError: The file cannot be written.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", _SIZE_PX, "white")
    draw = ImageDraw.Draw(picture)
    width, height = _SIZE_PX
    right, bottom = width - _RIGHT_PX, height - _BOTTOM_PX
    losses = np.array([[row.loss, row.validation_loss] for row in rows], float)
    usable = losses[np.isfinite(losses) & (losses > 0)]
    low, high = _decades(usable)
    last = max([row.step for row in rows], default=1)

    def place(step: float, share: float) -> tuple[float, float]:
        across = _LEFT_PX + step / last * (right - _LEFT_PX)
        return across, bottom - share * (bottom - _TOP_PX)

    for exponent in range(low, high + 1):
        y = place(0, (exponent - low) / (high - low))[1]
        draw.line((_LEFT_PX, y, right, y), fill=(225, 225, 225))
        draw.text((_LEFT_PX - 8, y), f"{10.0**exponent:g}", fill="black", anchor="rm")
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        draw.text((right + 8, place(0, share)[1]), f"{share:g}", fill=_DICE, anchor="lm")
        step = round(share * last)
        draw.text((place(step, 0)[0], bottom + 8), f"{step}", fill="black", anchor="mt")
    draw.rectangle((_LEFT_PX, _TOP_PX, right, bottom), outline=(120, 120, 120))

    def curve(values: Sequence[float], colour: tuple[int, int, int]) -> None:
        points = [
            place(row.step, value)
            for row, value in zip(rows, values, strict=True)
            if np.isfinite(value)
        ]
        draw.line(points, fill=colour, width=2)
        for x, y in points if len(points) < 60 else []:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)

    def on_log_axis(values: Any) -> list[float]:
        positive = np.where(np.asarray(values, float) > 0, values, np.nan)
        return [float(value) for value in (np.log10(positive) - low) / (high - low)]

    curves = [
        ("training loss, weighted", _LOSS, on_log_axis(losses[:, 0] if rows else [])),
        ("validation loss", _VALIDATION, on_log_axis(losses[:, 1] if rows else [])),
        ("mean Dice (right)", _DICE, [row.dice for row in rows]),
    ]
    drawn = [each for each in curves if np.isfinite(each[2]).any()]
    for number, (name, colour, values) in enumerate(drawn):
        curve(values, colour)
        draw.text((_LEFT_PX + 160 * number, _TOP_PX - 16), name, fill=colour, anchor="lm")
    draw.text(((_LEFT_PX + right) / 2, height - 10), "steps", fill="black", anchor="mm")
    with whole_file(path) as file:
        picture.save(file, "PNG")


def _decades(values: Any) -> tuple[int, int]:
    """Return the powers of ten that enclose all values."""
    if not len(values):
        return -1, 0
    low, high = int(np.floor(np.log10(values.min()))), int(np.ceil(np.log10(values.max())))
    return low, max(high, low + 1)
