"""Images and label images from files, ready to be learnt from."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, SettingError
from ..backends.base import NetworkFacts
from ..memory import available_bytes, human
from ..normalize import full_scale, resolve_normalization
from ..settings import Settings
from ..sources import Source, open_source
from .images import Labelled
from .objects import LabelKind, truth_of
from .pairs import Pair

_KEPT_BYTES_PER_PIXEL = 4 + 1 + 4
"""Weights, classes and objects."""

_WORK_BYTES_PER_PIXEL = 24
"""While the objects of one image are numbered."""

_ROWS = 256
"""Taken at once where numbers of double precision are added up."""

OF_THE_SET = "dataset"
"""Normalisation by mean and standard deviation of all training images together."""

# Normalisation asks a network what it was trained with; this one has not been.
_UNTRAINED = NetworkFacts("", "", "torch", None, (None, None), None, "0", "none")


class Raw(NamedTuple):
    """What files hold."""

    names: list[str]
    pixels: list[NDArray[Any]]
    """Of each image, ``(y, x, channel)``."""
    labels: list[NDArray[Any]]
    """Of each image, ``(y, x)``."""


def read_pairs(pairs: Sequence[Pair]) -> Raw:
    """Read all images and label images into memory.

    Raises:
        ImageError: One cannot be read, is of another size than its labels, has another number of
            channels than the others, or all together are larger than the free memory.
    """
    raw = Raw([], [], [])
    still_to_come = 0
    for pair in pairs:
        with closing(open_source(pair.image)) as image, closing(open_source(pair.labels)) as labels:
            _check_labels(image, labels, pair)
            still_to_come += prod(image.facts.levels[0].shape) * _KEPT_BYTES_PER_PIXEL
            _check_memory(image, labels, still_to_come, pair)
            facts = image.facts
            channels = tuple(each for each in range(facts.channels) if each != facts.alpha)
            pixels = _whole(image, channels)
            _check_numbers(pixels, pair.image)
            raw.names.append(str(pair.image))
            raw.pixels.append(pixels)
            raw.labels.append(_whole(labels, (0,))[..., 0])
    counts = [pixels.shape[2] for pixels in raw.pixels]
    for name, count in zip(raw.names, counts, strict=True):
        if count != counts[0]:
            raise ImageError(
                f"all images need the same channels; {raw.names[0]} has {counts[0]} and {name} "
                f"{count}; train on images of one kind"
            )
    return raw


def _check_labels(image: Source, labels: Source, pair: Pair) -> None:
    size, of_labels = image.facts.levels[0].shape, labels.facts.levels[0].shape
    if size != of_labels:
        raise ImageError(
            f"labels need the size of their image; {pair.image} has {size[0]} x {size[1]} px and "
            f"{pair.labels} {of_labels[0]} x {of_labels[1]}; correct or remove the pair"
        )
    facts = labels.facts
    if facts.channels - (facts.alpha is not None) != 1:
        raise ImageError(
            f"labels have one channel; {pair.labels} has {facts.channels}; "
            "save the label numbers as a grey image"
        )
    if np.dtype(facts.dtype).kind not in "iub":
        raise ImageError(
            f"labels are whole numbers; {pair.labels} holds {facts.dtype}; "
            "save the label numbers as integers"
        )


def _check_numbers(pixels: NDArray[Any], path: Path) -> None:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ImageError(
            f"images to learn from have a number in every pixel; {path} has NaN or infinity; "
            "fill these pixels or leave the image out"
        )


def _check_memory(image: Source, labels: Source, still_to_come: int, pair: Pair) -> None:
    per_pixel = _WORK_BYTES_PER_PIXEL
    for facts in (image.facts, labels.facts):
        per_pixel += facts.channels * np.dtype(facts.dtype).itemsize
    needed = prod(image.facts.levels[0].shape) * per_pixel + still_to_come
    free = available_bytes()
    if needed > free:
        raise ImageError(
            f"training keeps its images in memory; those up to {pair.image} need {human(needed)} "
            f"more and {human(free)} are free; cut them into pieces or give fewer"
        )


def _whole(source: Source, channels: tuple[int, ...]) -> NDArray[Any]:
    height, width = source.facts.levels[0].shape
    return source.read(0, Box.of(0, height, 0, width), channels)


def kind_of(labels: Sequence[NDArray[Any]]) -> LabelKind:
    """Return ``binary`` where no more than one value beside 0 occurs in all images together.

    Raises:
        SettingError: There are more: they may be classes or objects.
    """
    values: set[int] = set()
    for each in labels:
        values.update(np.unique(each).tolist())
    if len(values - {0}) > 1:
        raise SettingError(
            f"labels have values up to {max(values)}, which may be classes or objects; "
            "use label_kind=class or label_kind=instance, or label_kind=binary for anything but 0"
        )
    return "binary"


def labelled(raw: Raw, kind: LabelKind, normalization: Mapping[str, Any]) -> list[Labelled]:
    """Return the images with what they show, and with the constants that normalise them.

    Args:
        raw: What the files hold.
        kind: What the numbers of the labels are.
        normalization: What ``metadata_of`` says.

    Raises:
        SettingError: The labels cannot be of that kind, or there is no such mode.
    """
    settings = Settings(**normalization)
    found = []
    for name, pixels, labels in zip(*raw, strict=True):
        try:
            truth = truth_of(labels, kind)
        except SettingError as error:
            raise SettingError(f"labels of {name}: {error}") from error
        channels = tuple(range(pixels.shape[2]))
        with closing(open_source(pixels, axes="YXC")) as source:
            constants = resolve_normalization(settings, _UNTRAINED, source, 0, channels)
        found.append(Labelled(Path(name).name, pixels, truth, constants.offset, constants.scale))
    return found


def set_constants(raw: Raw) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of all images, in units of ``[0, 1]``."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for pixels in raw.pixels:
        for first in range(0, len(pixels), _ROWS):
            rows = pixels[first : first + _ROWS].astype(np.float64) / full_scale(pixels.dtype.name)
            count += rows.shape[0] * rows.shape[1]
            total = total + rows.sum((0, 1))
            squares = squares + (rows**2).sum((0, 1))
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    # To seven digits, so that the file says in full what was used.
    short = [float(f"{value:.7g}") for value in mean]
    return tuple(short), tuple(float(f"{value:.7g}") or 1.0 for value in deviation)


def metadata_of(raw: Raw, normalize: str) -> dict[str, Any]:
    """Return what the trained file says of its normalisation, as keys of ``Metadata``.

    Args:
        raw: What the files hold.
        normalize: One of the engine's modes, or ``dataset``.
    """
    if normalize != OF_THE_SET:
        return {"normalize": normalize}
    mean, deviation = set_constants(raw)
    return {"mean": mean, "std": deviation}


def held_out(
    images: Sequence[Labelled], share: float, seed: int
) -> tuple[list[Labelled], list[Labelled]]:
    """Return what to learn from, and what to measure on: none of a single image.

    Args:
        images: All there is.
        share: Share to measure on; of several images at least one, unless it is 0.
        seed: Of the choice.

    Raises:
        SettingError: The share is not between 0 and 1.
    """
    if not 0 <= share < 1:
        raise SettingError(f"validation={share} is not possible; use 0 or more, and less than 1")
    count = 0 if len(images) < 2 or share == 0 else max(1, round(share * len(images)))
    count = min(count, len(images) - 1)
    order = np.random.default_rng(seed).permutation(len(images))
    chosen = {int(number) for number in order[:count]}
    learn = [image for number, image in enumerate(images) if number not in chosen]
    return learn, [images[number] for number in sorted(chosen)]
