"""The unit of work: read a block's region, run its tiles, write its chunks."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box
from ..tiler.errors import (
    ImageError,
    ModelError,
    NumericError,
    OutOfMemoryError,
    OutputError,
    TileInferError,
    cause_of,
    failing_as,
)
from ..tiler.mirror import extend
from ..tiler.window import partition_of_unity
from .backends.base import Output, Runner
from .conduct import Conduct
from .decision import decide
from .halving import is_out_of_memory, memory_of
from .nodata import Missing, empty_of_mask, fill_missing, leave_out
from .plan import Plan
from .pool import first_of, result_of
from .sources import Source
from .sources.request import read_whole
from .stages import Stopwatch
from .stitcher.mask import Mask
from .stitcher.records import Record
from .unread import Unread, marked, read_rest


@dataclass(frozen=True, slots=True)
class Worker:
    """What a process opens once to compute blocks of a plan: ids come in, records go out."""

    plan: Plan
    """What to do."""
    source: Source
    """The image."""
    run: Runner
    """The network on its device."""
    mask: Mask | None
    """Where the result goes; ``None`` where labels are only looked at."""
    device: Executor
    """Runs the tiles of all blocks, first come, first served; the last block has it for itself."""
    conduct: Conduct = field(default_factory=Conduct)
    """What to do where something is wrong."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    """What the time goes to."""
    less: dict[Box, tuple[int, int, int]] = field(default_factory=dict)
    """What the tiles of a block under way were run with, where memory did not suffice."""
    turn: Callable[[], AbstractContextManager[None]] = nullcontext
    """What a batch waits for before it is run, and holds meanwhile."""


def infer_block(worker: Worker, block: int) -> Record:
    """Compute one block and write it.

    This is the only way a pixel gets into a mask: threads, GPUs and clusters all call it.

    Args:
        worker: What this process has opened.
        block: Number of the block in the plan's grid.

    Returns:
        The block's figures, which are stored as well.

    Raises:
        TileInferError: Something failed; the text names stage, block and file. Nothing of the block
            counts as done.
    """
    plan, mask, lap = worker.plan, worker.mask, worker.stopwatch.lap
    assert mask is not None, "a block is written"
    box = plan.grid.block_box(block)
    where = f"block {block} (pixels {box.y.start}:{box.y.stop}, {box.x.start}:{box.x.stop})"
    worker.stopwatch.start()
    with _telling(ImageError, "reading", plan.image.name, where):
        pixels, empty, unread = read_box(worker, box)
    lap("reading")
    stored, device = plan.stored_scores and plan.stored_scores[1], plan.execution.device
    network = f"{plan.network.name} on {plan.image.name}"
    with _telling(ModelError, "running", network, f"{where} on {device}", device):
        labels, scores = infer_box(worker, box, pixels, stored)
    less = worker.less.pop(box, None)
    with _telling(OutputError, "assembling", mask.place, where):
        filled = leave_out(empty, labels, scores, plan.recipe)
        record = Record.of(block, labels, len(plan.class_names), plan.recipe.not_computed, filled)
    if record.not_computed and worker.conduct.on_nan == "stop":
        raise NumericError(
            f"{plan.network.name} returned NaN or infinity for {record.not_computed} pixels of "
            f"{where}; check the normalisation and the precision, or count them with on_nan=report"
        )
    lap("assembling")
    with _telling(OutputError, "writing", mask.place, where):
        mask.write(record, box, labels, scores, unread, less)
    lap("writing")
    return record


_MEND = (
    "run it again when more is free, which continues, or start again with overwrite and a smaller "
    "tile=N, memory=N or batch_size=N, or another device=NAME"
)


@contextmanager
def _telling(
    kind: type[TileInferError], stage: str, file: str, block: str, device: str = "cpu"
) -> Iterator[None]:
    """Let whatever fails inside be told as ``failing_as`` does, and want of memory as such."""
    try:
        with failing_as(kind, stage, file, block):
            yield
    except TileInferError as error:
        if not is_out_of_memory(error):
            raise
        cause: BaseException = error
        while cause.__cause__ is not None:  # the library's own words
            cause = cause.__cause__
        short = memory_of("cpu" if isinstance(cause, MemoryError) else device)
        raise OutOfMemoryError(
            f"{stage} {file}, {block}: {short} ran out ({cause_of(cause)}); {_MEND}"
        ) from error


def read_box(worker: Worker, box: Box) -> tuple[NDArray[np.generic], Missing | None, Unread | None]:
    """Return what the block's tiles are fed, mirrored beyond the image: ``(y, x, channel)``.

    Besides, which of the block's pixels, ``(y, x)``, lie where the image has no data, and what of
    the image cannot be decoded.
    """
    plan = worker.plan
    region, places = plan.grid.region(box), tuple[Box, ...]()
    if worker.conduct.on_read_error == "fill":
        pixels, places = read_rest(worker.source, plan.level, region, plan.channels)
    else:
        pixels = read_whole(worker.source, plan.level, region, plan.channels)
    broken = marked(places, region)
    pixels, empty = fill_missing(pixels, plan.nodata, plan.recipe, broken)
    pixels = extend(pixels, region, plan.grid.input_box(box), plan.grid.image_shape)
    scale = plan.grid.scale
    lost = empty_of_mask(broken, region, box, scale)
    unread = Unread(places, 0 if lost is None else int(np.count_nonzero(lost))) if places else None
    return pixels, empty_of_mask(empty, region, box, scale), unread


def infer_box(
    worker: Worker, box: Box, pixels: NDArray[np.generic], scores_dtype: str | None = None
) -> tuple[NDArray[np.generic], NDArray[np.floating] | None]:
    """Return the labels ``(y, x)`` of a box, and scores ``(class, y, x)`` if given their dtype."""
    plan = worker.plan
    if plan.grid.blended:
        return _blend(worker, box, pixels, scores_dtype)
    labels, scores = np.empty(box.shape, plan.recipe.label_dtype), None
    if scores_dtype:
        scores = np.empty((plan.recipe.classes, *box.shape), scores_dtype)
    for window, output, index in _run_tiles(worker, box, pixels):
        target, part = _overlap(window, box)
        if output.labels is not None:
            labels[target.slices] = output.labels[index][part.slices]
        if scores is not None and output.scores is not None:
            scores[(slice(None), *target.slices)] = output.scores[index][
                (slice(None), *part.slices)
            ]
    return labels, scores


def _blend(
    worker: Worker, box: Box, pixels: NDArray[np.generic], scores_dtype: str | None
) -> tuple[NDArray[np.generic], NDArray[np.floating] | None]:
    """Add up the weighted probabilities of tiles; the weights sum to one, so nothing is divided."""
    plan, recipe = worker.plan, worker.plan.recipe
    grid, kind = plan.grid, plan.blend
    assert kind is not None, "a blended grid has a window"
    weights = np.outer(
        partition_of_unity(kind, grid.y.window, grid.y.core),
        partition_of_unity(kind, grid.x.window, grid.x.core),
    ).astype(np.float32)
    total = np.zeros((recipe.classes, *box.shape), np.float32)
    for window, output, index in _run_tiles(worker, box, pixels):
        assert output.scores is not None
        target, part = _overlap(window, box)
        total[(slice(None), *target.slices)] += (
            output.scores[index][(slice(None), *part.slices)] * weights[part.slices]
        )
    labels = decide(total[None], recipe)[0]
    return labels, total.astype(scores_dtype, copy=False) if scores_dtype else None


def _run_tiles(
    worker: Worker, box: Box, pixels: NDArray[np.generic]
) -> Iterator[tuple[Box, Output, int]]:
    """Run the tiles over ``box`` in batches; yield each tile's window, and where its result is."""
    grid, batch, stopwatch = worker.plan.grid, worker.plan.batch, worker.stopwatch
    tiles = grid.tiles_over(box)
    batches = [tiles[first : first + batch] for first in range(0, len(tiles), batch)]
    running = deque[Future[Output]]()
    try:
        running.extend(worker.device.submit(_run_batch, worker, box, pixels, n) for n in batches)
        for chosen in batches:
            future = running.popleft()
            first_of([future], worker.device)
            output = result_of(future)
            stopwatch.lap("waiting")
            if output.less is not None:
                worker.less[box] = min(output.less, worker.less.get(box, output.less))
            for index, tile in enumerate(chosen):
                yield grid.window_box(tile), output, index
            stopwatch.lap("assembling")
    finally:
        for future in running:
            future.cancel()


def _run_batch(
    worker: Worker, box: Box, pixels: NDArray[np.generic], tiles: list[tuple[int, int]]
) -> Output:
    """Cut tiles out of what was read for ``box`` and run them; this happens on the device."""
    grid, batch, stopwatch = worker.plan.grid, worker.plan.batch, worker.stopwatch
    stopwatch.start()
    origin = grid.input_box(box)
    views = []
    for tile in tiles:
        fed = grid.tile_box(tile)
        views.append(pixels[fed.shift(-origin.y.start, -origin.x.start).slices])
    if worker.plan.network.batch:  # a file that fixes the batch is given no less
        views += views[-1:] * (batch - len(views))
    stacked = np.stack(views)
    stopwatch.lap("assembling")
    with worker.turn():
        stopwatch.lap("waiting")
        output = worker.run(stacked)
        stopwatch.lap("network")
    check_output(output, worker.plan, len(stacked))
    return output


def check_output(output: Output, plan: Plan, tiles: int) -> None:
    """Refuse what is no map of each tile, of the size that is kept of it.

    Args:
        output: What the network gave.
        plan: What is wanted of it.
        tiles: How many it was given.

    Raises:
        ModelError: It gave a map of another size, for another number of tiles, or none.
    """
    grid, name = plan.grid, plan.network.name
    labels, scores = (tiles, *grid.window), (tiles, plan.recipe.classes, *grid.window)
    for found, shape, wanted in (
        (output.labels, labels, not grid.blended),
        (output.scores, scores, grid.blended or plan.stored_scores is not None),
    ):
        if found is None:
            if wanted:
                raise ModelError(f"{name} gave no map of shape {shape}; run again")
        elif found.shape[-2:] != grid.window:
            raise ModelError(
                f"{name} does not take tiles of {grid.tile[0]} x {grid.tile[1]} px: "
                f"{grid.window[0]} x {grid.window[1]} px are to be kept of each, and it gave "
                f"{found.shape[-2]} x {found.shape[-1]}; use another tile"
            )
        elif found.shape != shape:
            raise ModelError(f"{name} gave a map of shape {found.shape}, not {shape}; run again")


def _overlap(window: Box, box: Box) -> tuple[Box, Box]:
    """Return what a window and a block have in common, as seen from the block and the window."""
    common = Box(window.y.clip(box.y.start, box.y.stop), window.x.clip(box.x.start, box.x.stop))
    return (
        common.shift(-box.y.start, -box.x.start),
        common.shift(-window.y.start, -window.x.start),
    )
