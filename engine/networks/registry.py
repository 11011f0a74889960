"""The networks by the names under which commands and checkpoints know them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from ...tiler.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a network is built, and with what."""

    title: str
    """Name in its paper, and the paper."""
    module: str
    """Module of this package; it is imported only when the network is built, as it needs Torch."""
    builder: str
    """Class in it; it takes at least ``in_channels``, ``classes`` and ``width``."""
    preset: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that make it the paper's network."""


NETWORKS: Mapping[str, Entry] = {
    "unet": Entry("U-Net, Ronneberger et al. 2015", "unet", "UNet"),
    "unet_wide": Entry(
        "wide U-Net, Zhou et al. 2018", "unet", "UNet", {"width": 35, "padding": "same"}
    ),
}


def build(name: str, **options: Any) -> "SegmentationNetwork":
    """Build a network with the weights it starts training with.

    Args:
        name: One of ``NETWORKS``.
        options: Arguments of its class, which win over the preset, e.g. ``in_channels=3``,
            ``classes=2``, ``width=16``.

    Raises:
        SettingError: There is no such network, or it does not take such an option.
        MissingExtraError: Torch is not installed.
    """
    if name not in NETWORKS:
        raise SettingError(f"network={name!r} is none; use one of {', '.join(NETWORKS)}")
    entry = NETWORKS[name]
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"network {name} needs Torch: pip install 'tile-infer[torch]'"
        ) from error
    builder = getattr(import_module(f".{entry.module}", __package__), entry.builder)
    known = signature(builder).parameters
    for option in options:
        if option not in known:
            raise SettingError(f"network {name} has no {option}; use {', '.join(known)}")
    network: SegmentationNetwork = builder(**{**entry.preset, **options})
    return network
