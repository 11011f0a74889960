"""What a model says of itself in our own words: inside an ONNX file, or in a JSON beside any."""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from ...tiler.errors import ModelError, first_line
from .base import Activation, NetworkFacts

METADATA_KEY = "tile_infer"
"""Key of our JSON object in an ONNX file's ``metadata_props``."""

NORMALIZATIONS = ("none", "unit", "zscore", "percentile", "imagenet")

THE_MODEL = "the model"
"""Who says what lies inside the file."""

_FIELDS = {"classes": "class_names", "colours": "class_colours"}
"""Names of ``NetworkFacts`` where they differ."""

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of our JSON object, all optional."""

    classes: tuple[str, ...] | None = None
    """Name of each label, the background included."""
    colours: tuple[tuple[_Byte, _Byte, _Byte], ...] | None = None
    """Red, green and blue of each label."""
    normalize: str | None = None
    """How pixels are scaled, one of ``NORMALIZATIONS``."""
    percentiles: tuple[float, float] | None = None
    """Which percentiles ``normalize`` = ``percentile`` turns into 0 and 1."""
    mean: tuple[float, ...] | None = None
    """Mean per channel in units of ``[0, 1]``; goes with ``std``, instead of ``normalize``."""
    std: tuple[_Positive, ...] | None = None
    """Standard deviation per channel in units of ``[0, 1]``."""
    activation: Activation | None = None
    """What turns the output into probabilities."""
    threshold: float | None = None
    """Probability above which a network of one output channel says 1."""
    # No `_Positive` here: beside a tuple of fixed length, msgspec 0.22 crashes on such a number.
    pixel_size: float | tuple[float, float] | None = None
    """Size of the pixels it was trained on in micrometers: one number, or height and width."""

    def __post_init__(self) -> None:
        low, high = self.percentiles or (0.0, 100.0)
        rules = (
            (
                self.normalize in (None, *NORMALIZATIONS),
                f"normalize {self.normalize!r} is none of {', '.join(NORMALIZATIONS)}",
            ),
            ((self.mean is None) == (self.std is None), '"mean" and "std" go together'),
            (
                self.mean is None or len(self.mean) == len(self.std or ()) > 0,
                "mean and std need one number per channel each",
            ),
            (
                self.mean is None or self.normalize is None,
                "mean and std replace normalize: give one of them",
            ),
            (
                self.percentiles is None or self.normalize == "percentile",
                'percentiles need "normalize": "percentile"',
            ),
            (0 <= low < high <= 100, "percentiles lie between 0 and 100, the smaller first"),
            (
                self.threshold is None or 0 < self.threshold < 1,
                "threshold lies between 0 and 1",
            ),
            (
                self.pixel_size is None or np.all(np.asarray(self.pixel_size) > 0),
                "pixel_size is above 0",
            ),
            (
                not self.classes or not self.colours or len(self.classes) == len(self.colours),
                f"{len(self.classes or ())} classes have {len(self.colours or ())} colours",
            ),
        )
        for holds, rule in rules:
            if not holds:
                raise ValueError(rule)

    def stated(self) -> dict[str, Any]:
        """Return the keys that are there."""
        return {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not None
        }

    def encode(self) -> str:
        """Return the JSON."""
        return msgspec.json.encode(self.stated()).decode()


def decode(text: str | bytes, where: str) -> Metadata:
    """Return the metadata that a JSON object holds.

    Args:
        text: The JSON.
        where: What holds it, for errors.

    Raises:
        ModelError: It is not what ``Metadata`` describes.
    """
    try:
        return msgspec.json.decode(text, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = first_line(error).replace("`", "'")
        unknown = re.search(r"unknown field '(.*)'", why)
        if unknown:
            why = f"{unknown[1]!r} is no key; use {', '.join(Metadata.__struct_fields__)}"
        raise ModelError(
            f"{where} cannot be understood ({why}); it is JSON such as "
            '{"classes": ["background", "nucleus"], "normalize": "unit"}'
        ) from error


def place_beside(model: Path) -> Path:
    """Return where a model's metadata may lie.

    >>> place_beside(Path("models/unet.onnx")).name
    'unet.tile_infer.json'
    """
    return model.with_name(f"{model.stem}.{METADATA_KEY}.json")


def read_beside(model: Path) -> tuple[str, Metadata] | None:
    """Return the name of the JSON beside a model and what it says; ``None`` without one.

    Raises:
        ModelError: It cannot be read or understood.
    """
    path = place_beside(model)
    try:
        return path.name, decode(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); it describes {model}") from (
            error
        )


def with_metadata(facts: NetworkFacts, who: str, metadata: Metadata) -> NetworkFacts:
    """Return a network's facts with what is said of it.

    Args:
        facts: The facts, perhaps with what others have said.
        who: Who says it now.
        metadata: What is said.

    Raises:
        ModelError: Others have said something else.
    """
    new, origins = {}, dict(facts.origins)
    for key, value in metadata.stated().items():
        name = _FIELDS.get(key, key)
        if name == "pixel_size":
            value = value if isinstance(value, tuple) else (value, value)
        if name in origins and getattr(facts, name) != value:
            _contradict(key, origins[name], getattr(facts, name), who, value)
        new[name] = value
        origins.setdefault(name, who)
    _check_normalization(origins, {**_said(facts), **new})
    return replace(facts, **new, origins=tuple(origins.items()))


SAID_OF_RESULTS = (
    *("class_names", "class_colours", "normalize", "percentiles", "mean", "std"),
    *("activation", "threshold", "pixel_size", "preprocessing"),
)
"""Fields of ``NetworkFacts`` that metadata sets and a mask depends on."""


def differing(one: NetworkFacts, other: NetworkFacts) -> Iterable[str]:
    """Return the fields that metadata has set otherwise."""
    return [name for name in SAID_OF_RESULTS if getattr(one, name) != getattr(other, name)]


def _said(facts: NetworkFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name, _ in facts.origins}


def _check_normalization(origins: dict[str, str], said: dict[str, Any]) -> None:
    """Refuse constants and a mode, or a mode and another's description, from two places."""
    ways = [name for name in ("normalize", "mean", "preprocessing") if name in said]
    if "preprocessing" in ways:
        setting = said["preprocessing"].setting
        if setting == said.get("normalize"):
            return
        said["preprocessing"] = setting or "steps of its own"
    for name, other in pairwise(ways):
        _contradict("normalize", origins[name], said[name], origins[other], said[other])


def _contradict(key: str, who: str, value: object, other: str, value2: object) -> None:
    raise ModelError(
        f"{who} and {other} contradict in {key}: {_shown(value)} and {_shown(value2)}; "
        "correct one of them"
    )


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode() if not isinstance(value, str) else value
