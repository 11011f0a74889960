"""Make a plan, and the network ready to run it, on a device that can."""

from dataclasses import replace

import numpy as np

from ..tiler.errors import DeviceError, ModelError, OutOfMemoryError, TileInferError, first_line
from .augmentation import prepare
from .backends import Network
from .backends.base import Runner
from .block import check_output
from .halving import is_out_of_memory, with_less_memory
from .plan import Plan
from .planning import make_plan
from .runtime import attempts
from .settings import Settings
from .sources import Source


def make_ready(
    source: Source, network: Network, settings: Settings, tried: bool
) -> tuple[Plan, Runner]:
    """Return a new plan and the network ready for it.

    Args:
        source: The image.
        network: The network.
        settings: What is asked for; the plan says so, whatever else had to be tried.
        tried: Whether a tile is to be run on a CPU as well. It takes its time there, and the
            mask's own first one will do.

    Raises:
        DeviceError: No device that was asked for can be had.
        ModelError: The network cannot run the tiles of the plan.
        OutOfMemoryError: Nor one tile of the smallest.
    """
    refused: list[DeviceError] = []
    for attempt in attempts(network.facts, settings):
        try:
            plan, run = _fitting(source, network, attempt, tried)
        except DeviceError as error:
            refused.append(error)
            continue
        plan = replace(plan, asked=tuple(settings.given()))
        if refused:
            on = "on the CPU" if plan.execution.device == "cpu" else "by Torch"
            plan = replace(plan, warnings=(*plan.warnings, f"running {on}: {refused[-1]}"))
        return plan, run
    raise refused[0]


def _fitting(
    source: Source, network: Network, settings: Settings, tried: bool
) -> tuple[Plan, Runner]:
    """Return a plan and its runner; where a GPU's memory runs out, of a smaller batch or tile."""
    plan, less, short = make_plan(source, network, settings), settings, ""
    while True:
        try:
            if plan.execution.device == "cpu" and not tried:
                run = prepare(network, plan)
            else:
                run = _tried(network, plan)
        except OutOfMemoryError as error:
            if plan.execution.device == "cpu":
                raise
            plan, less = _smaller(source, network, plan, less, error)
            short = str(error)
        else:
            break
    if not short:
        return plan, run
    # The same command names the same batch when it continues.
    asked = replace(plan.settings, batch_size=settings.batch_size or plan.batch)
    warning = f"running less at once: {short}"
    return replace(plan, settings=asked, warnings=(*plan.warnings, warning)), run


def _smaller(
    source: Source, network: Network, plan: Plan, settings: Settings, error: OutOfMemoryError
) -> tuple[Plan, Settings]:
    """Return a plan of a smaller batch or tile, and the settings that lead to it."""
    while (less := with_less_memory(plan, settings)) is not None:
        smaller = make_plan(source, network, less)
        if (smaller.batch, smaller.grid.tile) != (plan.batch, plan.grid.tile):
            return smaller, less
        settings = less
    raise error


def _tried(network: Network, plan: Plan) -> Runner:
    """Prepare a network and run a black tile, so that what cannot run is told before it begins."""
    run = prepare(network, plan)
    shape = (plan.batch, *plan.grid.tile, plan.recipe.channels)
    try:
        check_output(run(np.zeros(shape, plan.recipe.dtype)), plan, plan.batch)
    except TileInferError:
        raise
    except Exception as error:
        kind = OutOfMemoryError if is_out_of_memory(error) else ModelError
        raise kind(
            f"{plan.network.name} cannot run {plan.batch} tiles of {plan.grid.tile[0]} x "
            f"{plan.grid.tile[1]} px at once on {plan.execution.device}: {first_line(error)}"
        ) from error
    return run
