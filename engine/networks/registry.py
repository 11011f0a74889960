"""The networks by the names under which commands and checkpoints know them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import Parameter, signature
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
    "unetpp": Entry("UNet++, Zhou et al. 2018", "nested", "NestedUNet", {"skips": "dense"}),
    "unetp": Entry("UNet+, Zhou et al. 2019", "nested", "NestedUNet", {"skips": "neighbour"}),
    "unete": Entry("U-Net^e, Zhou et al. 2019", "nested", "NestedUNet", {"skips": "encoder"}),
    "fcn32s": Entry("FCN-32s, Long et al. 2015", "fcn", "FCN", {"stride": 32}),
    "fcn16s": Entry("FCN-16s, Long et al. 2015", "fcn", "FCN", {"stride": 16}),
    "fcn8s": Entry("FCN-8s, Long et al. 2015", "fcn", "FCN", {"stride": 8}),
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
    builder, known = _builder(name)
    _check_known(name, options, known)
    network: SegmentationNetwork = builder(**{**NETWORKS[name].preset, **options})
    return network


def options_of(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """Return options of a network that were written as ``width=16`` or ``padding=same``.

    Args:
        name: One of ``NETWORKS``.
        texts: The options; each has the type of what it stands for.

    Raises:
        SettingError: There is no such network or option, or it is of another type.
        MissingExtraError: Torch is not installed.
    """
    _, known = _builder(name)
    found: dict[str, Any] = {}
    for text in texts:
        option, equals, value = text.partition("=")
        if not equals:
            raise SettingError(f"option {text!r} has no value; write it like depth=3")
        _check_known(name, [option], known)
        kind = type(known[option].default)
        try:
            found[option] = _FLAGS[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            raise SettingError(
                f"option {text!r} is none of {name}'s; {option} is "
                f"{_KINDS[kind]} like {option}={str(known[option].default).lower()}"
            ) from None
    return found


_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_KINDS = {bool: "true or false,", int: "a whole number", float: "a number", str: "a word"}


def _builder(name: str) -> tuple[Callable[..., Any], Mapping[str, Parameter]]:
    if name not in NETWORKS:
        raise SettingError(f"network={name!r} is none; use one of {', '.join(NETWORKS)}")
    entry = NETWORKS[name]
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"network {name} needs Torch: pip install torch") from error
    builder = getattr(import_module(f".{entry.module}", __package__), entry.builder)
    return builder, signature(builder).parameters


def _check_known(name: str, options: Iterable[str], known: Mapping[str, Parameter]) -> None:
    for option in options:
        if option not in known:
            raise SettingError(f"network {name} has no {option}; use {', '.join(known)}")
