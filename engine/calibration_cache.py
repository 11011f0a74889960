"""Rates that were measured before: one small file for each network on each device."""

from dataclasses import asdict
from pathlib import Path

from .backends.base import NetworkFacts
from .backends.device_facts import device_name
from .cache import cache, cache_path, cached
from .layout import Layout

_OF_THE_TILE = ("tile", "crop", "window")
"""Parts of a recipe that each rate is named by."""

_VALUES = ("offset", "scale", "threshold", "clip")
"""Parts of a recipe whose values take no time."""


def rates_path(network: NetworkFacts, layout: Layout) -> Path:
    """Return the file for a network on a device: its name tells all that a rate depends on.

    Library, tile, batch, workers and threads are told by the name of each rate in it.
    """
    recipe, execution = asdict(layout.recipe), layout.execution
    about = {
        "network": [network.sha256, network.head],
        "recipe": {key: recipe[key] for key in sorted({*recipe} - {*_OF_THE_TILE, *_VALUES})},
        "normalizes": layout.recipe.normalizes,
        "device": device_name(execution.device),
        "precision": execution.precision,
        "form": execution.form,
    }
    return cache_path("rates", about)


def stored_rates(path: Path) -> dict[str, float]:
    """Return the rates in a file; nothing where it is not there, or damaged."""
    try:
        found = cached(path).items()
        return {str(name): float(rate) for name, rate in found if 0 < float(rate) < 1e9}
    except (ValueError, TypeError, AttributeError):
        return {}


def store_rates(path: Path, rates: dict[str, float]) -> None:
    """Keep rates besides those that are there; where that cannot be, they are measured again."""
    cache(path, {**stored_rates(path), **rates})
