"""Choose the fastest arithmetic that leaves an image's labels as they are, where that is asked."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box, Interval
from ..tiler.errors import DeviceError, ImageError, MissingExtraError, ModelError, failing_as
from .augmentation import prepare
from .backends.base import Execution, Network, Precision
from .block import Worker, infer_box, read_box
from .calibration import NAMES
from .nodata import fill_missing
from .plan import Plan
from .sources import Source
from .sources.request import read_whole

MOST_CHANGED = 0.001
"""Share of the pixels whose label may differ from that in fp32."""

_TILES = 8
"""Tiles that are compared."""

_LOOKS = 8
"""Places along each axis at which an image is looked at, to find where it varies most."""

_LOOK_PX = 64
"""Side of such a place."""


def real_precision(asked: str | None) -> Precision:
    """Return the precision to plan in: ``fast`` is resolved once all else is known."""
    known: dict[str | None, Precision] = {each: each for each in ("tf32", "bf16", "fp16")}
    return known.get(asked, "fp32")


@dataclass(frozen=True, slots=True)
class _Trial:
    """What became of the most varied tiles in one precision."""

    labels: tuple[NDArray[np.generic], ...]
    """One ``(y, x)`` for each."""
    seconds: float
    """Time for the fastest of them."""


def fastest_precision(plan: Plan, source: Source, network: Network) -> Plan:
    """Return a plan in fp32 in the fastest precision that changes next to no labels.

    The tiles of this image that vary most are run in each precision that the device has. One that
    changes more than ``MOST_CHANGED`` of their labels, or that is no faster, is not taken.
    """
    boxes = varied_boxes(plan, source)
    usual = _trial(plan, source, network, boxes)
    if usual is None:
        return plan  # the run itself will say what is wrong
    best, seconds, changed, notes = plan, usual.seconds, None, []
    for execution in _candidates(plan):
        there = replace(plan, execution=execution)
        trial = _trial(there, source, network, boxes)
        if trial is None:
            continue
        share = changed_share(usual.labels, trial.labels, plan.recipe.not_computed)
        if share <= MOST_CHANGED and trial.seconds < seconds:
            best, seconds, changed = there, trial.seconds, share
        notes.append((execution.precision, share))
    taken = best.execution
    told = ", ".join(
        f"{precision} differs from fp32 in the labels of {100 * share:.2g} % of the pixels"
        for precision, share in notes
    )
    note = f"precision {taken.precision}, run by {NAMES[taken.backend]}"
    note += f": {told} of the {len(boxes)} most varied tiles" if told else ": the only one here"
    settings = replace(plan.settings, precision=taken.precision, backend=taken.backend)
    return replace(best, settings=settings, labels_changed=changed, notes=(*plan.notes, note))


def varied_boxes(plan: Plan, source: Source) -> list[Box]:
    """Return the cores, in pixels of the mask, where the image varies most.

    It is looked at in a coarse grid of places, in the numbers that the network is given.
    """
    grid = plan.grid
    shape, core = grid.shape, grid.core
    cells = [
        Box(
            Interval(y * core[0], min((y + 1) * core[0], shape[0])),
            Interval(x * core[1], min((x + 1) * core[1], shape[1])),
        )
        for y in _spread(-(-shape[0] // core[0]))
        for x in _spread(-(-shape[1] // core[1]))
    ]
    variances = [_variance(plan, source, cell) for cell in cells]
    return [cells[place] for place in np.argsort(variances, kind="stable")[::-1][:_TILES]]


def _spread(count: int) -> Iterator[int]:
    """Return up to ``_LOOKS`` of so many cells, evenly."""
    looks = min(count, _LOOKS)
    return ((2 * look + 1) * count // (2 * looks) for look in range(looks))


def _variance(plan: Plan, source: Source, cell: Box) -> float:
    """Return how far the pixels in the middle of a cell vary; those without data do not."""
    sides = [
        Interval(middle - _LOOK_PX // 2, middle + _LOOK_PX // 2).clip(0, length)
        for middle, length in zip(
            (plan.grid.scale.image_px(side.start + side.stop) // 2 for side in cell),
            plan.grid.image_shape,
            strict=True,
        )
    ]
    with failing_as(ImageError, "reading", plan.image.name):
        pixels = read_whole(source, plan.level, Box(*sides), plan.channels)
    pixels, _ = fill_missing(pixels, plan.nodata, plan.recipe)
    scale = np.asarray(plan.recipe.scale)
    return float((pixels.var(axis=(0, 1), dtype=np.float64) * scale**2).sum())


def _candidates(plan: Plan) -> list[Execution]:
    """Return where else the plan could run, apart from fp32; not all of it has to be there."""
    execution = plan.execution
    if execution.device != "cpu":
        return [replace(execution, precision=each) for each in ("tf32", "bf16", "fp16")]
    if execution.backend != "torch":
        if "backend" in plan.asked and execution.backend != "openvino":
            return []  # ONNX Runtime has no other on a CPU
        execution = replace(execution, backend="openvino")
    return [replace(execution, precision="bf16")]


def _trial(plan: Plan, source: Source, network: Network, boxes: list[Box]) -> _Trial | None:
    """Run boxes as a block is run; ``None`` where the precision cannot be had."""
    try:
        run = prepare(network, plan)
    except (DeviceError, MissingExtraError, ModelError):
        return None

    def look(box: Box) -> tuple[NDArray[np.generic], float]:
        with failing_as(ImageError, "reading", plan.image.name):
            pixels, empty, _ = read_box(worker, box)
        begun = perf_counter()
        with failing_as(ModelError, "running", f"{plan.network.name} on {plan.image.name}"):
            labels, _ = infer_box(worker, box, pixels)
        seconds = perf_counter() - begun
        return labels if empty is None else np.where(empty, 0, labels), seconds

    with ThreadPoolExecutor(plan.workers) as device, ThreadPoolExecutor(plan.workers) as pool:
        worker = Worker(plan, source, run, None, device)
        look(boxes[0])  # the first time, a run takes longer
        labels, seconds = zip(*pool.map(look, boxes), strict=True)
    return _Trial(labels, min(seconds))


def changed_share(
    usual: Sequence[NDArray[np.generic]], other: Sequence[NDArray[np.generic]], not_computed: int
) -> float:
    """Return the share of pixels whose label is another, or for which there is none."""
    pairs = zip(usual, other, strict=True)
    changed = sum(int(np.count_nonzero((one != two) | (two == not_computed))) for one, two in pairs)
    return changed / sum(labels.size for labels in usual)
