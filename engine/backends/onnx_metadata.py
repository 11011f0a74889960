"""What an ONNX file says of its classes and its normalisation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ...tiler.errors import ModelError

METADATA_KEY = "tile_infer"
"""Key of our JSON object in the file's ``metadata_props``."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """``{"classes": [...], "normalize": "unit", "mean": [...], "std": [...]}``, all optional."""

    classes: tuple[str, ...] = ()
    """Names of the classes."""
    normalize: str | None = None
    """Normalisation that the network was trained with."""
    mean: tuple[float, ...] | None = None
    """Mean per channel in units of ``[0, 1]``."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel in units of ``[0, 1]``."""


def read_metadata(model: onnx.ModelProto, path: Path) -> Metadata:
    """Return what the file says; nothing where it says nothing.

    Raises:
        ModelError: The entry is not what ``Metadata`` describes.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None:
        return Metadata()
    try:
        found = json.loads(text)
        metadata = Metadata(
            classes=tuple(_strings(found.get("classes", []))),
            normalize=None if found.get("normalize") is None else str(found["normalize"]),
            mean=_numbers(found.get("mean")),
            std=_numbers(found.get("std")),
        )
        if (metadata.mean is None) != (metadata.std is None):
            raise ValueError("mean and std go together")
        if metadata.std is not None and min(metadata.std, default=0) <= 0:
            raise ValueError("std must be above 0")
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"model {path}: its metadata {METADATA_KEY!r} cannot be understood ({error}); it is "
            'JSON such as {"classes": ["background", "nucleus"], "normalize": "unit"}'
        ) from error
    return metadata


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("classes must be a list of names")
    return value


def _numbers(value: Any) -> tuple[float, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise ValueError("mean and std must be lists with a number per channel")
    return tuple(float(number) for number in value)
