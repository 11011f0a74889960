"""The end of a run in parts: every block is there, and what no block could make is made."""

import os
from collections.abc import Collection
from time import perf_counter

from ..tiler.errors import OutputError, failing_as
from .crew import Effort
from .plan import Plan
from .predict import opened_mask
from .prediction import Prediction, build_report
from .stitcher.lock import one_writer
from .stitcher.store import open_store, place, stored_plan
from .url import Url

_NAMED = 8
"""Blocks that a refusal names."""


def finish(out: str | os.PathLike[str] | Url, *, break_lock: bool = False) -> Prediction:
    """Complete a mask whose parts have all been computed.

    Every chunk is decoded and every record read. A mask that is complete stays as it is.

    Args:
        out: Folder or URL of the mask.
        break_lock: Take over what a process of another machine holds; it must have ended.

    Returns:
        The finished mask.

    Raises:
        OutputError: It is no mask, a part of it is missing or is being written, or it is damaged.
    """
    begun = perf_counter()
    store = open_store(out)
    stored = stored_plan(store)
    if stored is None:
        raise OutputError(f"{place(store)} is no mask that was begun; name the folder of one")
    with one_writer(store, break_lock):
        plan = Plan.from_dict(stored)
        mask, records = opened_mask(store, plan)
        _check_all_there(place(store), records, plan.grid.blocks)
        with failing_as(OutputError, "finishing", mask.place):
            mask.finish()
            unread = mask.unread()
        report = build_report(
            plan,
            place(store),
            records,
            unread.values(),
            mask.changed(),
            perf_counter() - begun,
            0,
            Effort().stages,
            Effort().counts(None, mask),
            mask.certificate,
        )
        return Prediction(mask.levels[0], mask.group, plan, report)


def _check_all_there(where: str, done: Collection[int], blocks: int) -> None:
    missing = [block for block in range(blocks) if block not in done]
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (", …" if missing[_NAMED:] else "")
        raise OutputError(
            f"{where} lacks {len(missing)} of {blocks} blocks ({named}); run the parts again that "
            "were to make them: what is there is kept"
        )
