"""Rates that were measured before: one small file for each network on each device."""

import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir

from .backends.base import NetworkFacts
from .backends.device_facts import device_name
from .layout import Layout

_LIBRARIES = ("tile-infer", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")
"""Another version of one may run at another rate."""

_OF_THE_TILE = ("tile", "crop", "window")
"""Parts of a recipe that each rate is named by."""

_VALUES = ("offset", "scale", "threshold", "clip")
"""Parts of a recipe whose values take no time."""


def cache_folder() -> Path:
    """Return where this user's measurements are kept: ``TILE_INFER_CACHE``, or the usual place."""
    own = os.environ.get("TILE_INFER_CACHE")
    if own:
        return Path(own)
    place = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    try:
        return Path(place or Path.home() / ".cache") / "tile-infer"
    except RuntimeError:  # there is no home
        return Path(gettempdir()) / "tile-infer"


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
        "libraries": {library: _version(library) for library in _LIBRARIES},
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "rates" / f"{key}.json"


def stored_rates(path: Path) -> dict[str, float]:
    """Return the rates in a file; nothing where it is not there, or damaged."""
    try:
        found = json.loads(path.read_text())
        return {str(name): float(rate) for name, rate in found.items() if 0 < float(rate) < 1e9}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def store_rates(path: Path, rates: dict[str, float]) -> None:
    """Keep rates; where that cannot be, they are measured again the next time."""
    partial = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({**stored_rates(path), **rates}, indent=1))
        partial.replace(path)


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
