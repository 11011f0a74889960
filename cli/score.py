"""`tile-infer score`: a mask against the truth."""

from collections.abc import Callable
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from ..engine.measures import Counts
from ..engine.scoring import Scores, TruthKind, score_mask
from .summary import columns
from .terminal import Terminal


def score(
    mask: Path,
    truth: Path,
    /,
    *,
    kind: Annotated[TruthKind, Parameter(name="--truth")] = "auto",
    min_size: Annotated[int, Parameter(metavar="PX")] = 1,
    iou: Annotated[float, Parameter(metavar="X")] = 0.5,
    no_objects: bool = False,
    json: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Compare a mask with the truth: Dice, IoU, F2, sensitivity, specificity, objects found.

    Args:
        mask: The mask: a Zarr that this program wrote, or an image of label numbers.
        truth: The true labels, an image or a Zarr of the same size.
        kind: What the numbers of the truth are: binary (anything but 0), class, or instance
            (objects) [default: class if the mask has several classes; else binary].
        min_size: Objects of fewer pixels do not count [default: 1].
        iou: Overlap above which an object is found, as intersection over union [default: 0.5].
        no_objects: Compare pixels only.
        json: Print JSON.
        terminal: Where to print.
    """
    scores = score_mask(mask, truth, kind=kind, objects=not no_objects, min_size=min_size, iou=iou)
    if scores.left_out:
        terminal.note(f"{scores.left_out} pixels that were not computed are left out")
    if json:
        terminal.json(_figures(scores))
        return 0
    terminal.print(_table(scores))
    facts = [("pixel error", _shown(scores.pixel_error))]
    for label, counts in (scores.objects or {}).items():
        found, true = _both(counts)
        facts.append(
            (
                f"objects, {_name(scores, label)}",
                f"F1 {_shown(counts.f(1))} at IoU {iou:g}: {counts.true_positives} of {true} "
                f"found, {found} in the mask",
            )
        )
    for line in columns(facts):
        terminal.print(line)
    return 0


_MEASURES: dict[str, Callable[[Counts], float]] = {
    "Dice": lambda counts: counts.dice,
    "IoU": lambda counts: counts.iou,
    "F1": lambda counts: counts.f(1),
    "F2": lambda counts: counts.f(2),
    "precision": lambda counts: counts.precision,
    "sensitivity": lambda counts: counts.sensitivity,
    "specificity": lambda counts: counts.specificity,
}


def _table(scores: Scores) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for measure in _MEASURES:
        table.add_column(measure, justify="right")
    for label in scores.labels:
        counts = scores.of(label)
        values = [_shown(measure(counts)) for measure in _MEASURES.values()]
        table.add_row(scores.class_names[label], *values)
    return table


def _figures(scores: Scores) -> dict[str, Any]:
    """Return all figures; those that are not defined are null."""
    classes = []
    for label in scores.labels:
        counts = scores.of(label)
        entry: dict[str, Any] = {"label": label, "name": scores.class_names[label]}
        for name, measure in _MEASURES.items():
            entry[name.lower()] = _plain(measure(counts))
        if scores.objects is not None:
            entry["objects"] = _object_figures(scores.objects.get(label, Counts(0, 0, 0)))
        classes.append(entry)
    return {
        "pixel_error": _plain(scores.pixel_error),
        "pixels": int(scores.confusion.sum()),
        "not_computed": scores.left_out,
        "classes": classes,
    }


def _object_figures(counts: Counts) -> dict[str, Any]:
    named = {field.name: getattr(counts, field.name) for field in fields(counts)}
    del named["true_negatives"]
    return {"f1": counts.f(1), **named}


def _both(counts: Counts) -> tuple[int, int]:
    both = counts.true_positives
    return both + counts.false_positives, both + counts.false_negatives


def _name(scores: Scores, label: int) -> str:
    return scores.class_names[label] if label < len(scores.class_names) else f"class {label}"


def _plain(value: float) -> float | None:
    return value if isfinite(value) else None


def _shown(value: float) -> str:
    return f"{value:.4f}" if isfinite(value) else "-"
