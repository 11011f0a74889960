"""What a bench runs where nothing is given: the paper's U-Net, and a slide sized for the device."""

from contextlib import closing
from dataclasses import replace
from math import sqrt
from pathlib import Path

from ..tiler.errors import MissingExtraError, SettingError
from ..tiler.grid import Grid
from .backends import open_network
from .network_alone import network_alone
from .networks.export import export_onnx
from .networks.registry import build
from .networks.repeated_slide import write_repeated_slide
from .planning import plan_image
from .settings import Settings

RUN_SECONDS = 30.0
"""Time a run is to take: long against its beginning and end."""

SMALLEST_PX, LARGEST_PX = 2048, 20480
"""Sides that a slide is kept between, however slow or fast the device."""

PLANNED_PX = 8192
"""Side of the slide by which a large image is planned: it has blocks for many workers."""

SLIDE_CHANNELS = 3


def write_paper_unet(path: Path) -> None:
    """Write the U-Net of the paper as ONNX, with three input channels and random weights.

    Raises:
        MissingExtraError: Torch is not installed.
    """
    try:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = build("unet", in_channels=SLIDE_CHANNELS, classes=2)
    except ImportError as error:
        raise MissingExtraError(
            "the paper's U-Net is built by Torch: pip install torch, or name a network of your own"
        ) from error
    export_onnx(module, path, in_channels=SLIDE_CHANNELS, normalize="unit")


def write_sized_slide(path: Path, model: Path, settings: Settings) -> Settings:
    """Write a slide that a run takes about half a minute for, and return the settings for it.

    What a plan for a large slide measures and chooses is fixed for the one that is written, so that
    a slow device's small slide is run in the same way.

    Args:
        path: The TIFF to write.
        model: The network's file.
        settings: What was asked for.

    Raises:
        SettingError: The network takes more channels than the slide has.
        TileInferError: As ``plan_image``.
    """
    settings = replace(settings, level=0, channels=_channels(model, settings))
    write_repeated_slide(path, (PLANNED_PX, PLANNED_PX))
    plan = plan_image(path, model, settings)
    rate = network_alone(model, plan, settings)
    write_repeated_slide(path, slide_shape(plan.grid, rate))
    return replace(settings, backend=plan.execution.backend, tile=plan.grid.tile)


def slide_shape(grid: Grid, tiles_per_second: float) -> tuple[int, int]:
    """Return the height and width that a run takes ``RUN_SECONDS`` for, in whole tiles' strides.

    Args:
        grid: Its strides count, so that no tile lies mostly outside of the slide.
        tiles_per_second: Of the network alone.
    """
    y, x = (axis.stride for axis in (grid.y, grid.x))
    wanted = sqrt(RUN_SECONDS * tiles_per_second * y * x)
    side = min(max(wanted, SMALLEST_PX), LARGEST_PX)
    return max(1, round(side / y)) * y, max(1, round(side / x)) * x


def _channels(model: Path, settings: Settings) -> tuple[int, ...] | None:
    """Return as many of the slide's channels as the network takes, unless some are asked for."""
    with closing(open_network(model, **settings.of_network())) as network:
        taken = network.facts.channels
    if settings.channels is not None or taken is None:
        return settings.channels
    if taken > SLIDE_CHANNELS:
        raise SettingError(
            f"{model.name} takes {taken} channels and the slide made for it has {SLIDE_CHANNELS}; "
            "name an image of your own"
        )
    return tuple(range(taken))
