"""What was measured of a network on this machine: small files in the user's folder of caches."""

import hashlib
import json
import os
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir
from typing import Any

_LIBRARIES = ("tile-infer", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "torch")
"""Another version of one may measure otherwise."""


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


def cache_path(kind: str, about: dict[str, Any]) -> Path:
    """Return the file of a measurement, whose name tells all that it depends on.

    Args:
        kind: What is measured.
        about: What it depends on, besides the versions of the libraries: values for JSON.
    """
    known = {**about, "libraries": {library: _version(library) for library in _LIBRARIES}}
    key = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return cache_folder() / kind / f"{key}.json"


def cached(path: Path) -> Any:
    """Return what a file holds; ``None`` where it is not there, or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def cache(path: Path, value: Any) -> None:
    """Keep a value for JSON; where that cannot be, it is measured again the next time."""
    partial = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value, indent=1))
        partial.replace(path)


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
