"""Images in memory with what they show and the weights of their pixels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box, Interval
from ...tiler.errors import ImageError, SettingError
from ...tiler.mirror import extend, mirrored_region
from .objects import Truth
from .weight_map import WeightMap


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image and what it shows."""

    name: str
    """For messages."""
    pixels: NDArray[Any]
    """Raw values, ``(y, x, channel)``."""
    truth: Truth
    """Classes and objects, ``(y, x)``."""
    offset: tuple[float, ...]
    """Subtracted from the raw values of each channel."""
    scale: tuple[float, ...]
    """Multiplied after that."""

    def __post_init__(self) -> None:
        image, labels = self.pixels.shape[:2], self.truth.classes.shape
        if image != labels:
            raise ImageError(
                f"labels need the size of their image; {self.name} has {image[0]} x {image[1]} px "
                f"and its labels {labels[0]} x {labels[1]}; correct or remove the pair"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.truth.classes.shape[0], self.truth.classes.shape[1]

    def normalised(self, box: Box) -> NDArray[np.float32]:
        """Return the network's input ``(channel, y, x)`` of a rectangle that may leave the image.

        Beyond its borders the image is mirrored, as when the network is used.
        """
        raw = rectangle(self.pixels, box).astype(np.float32)
        offset, scale = (np.asarray(values, np.float32) for values in (self.offset, self.scale))
        return np.ascontiguousarray(((raw - offset) * scale).transpose(2, 0, 1))


def rectangle(array: NDArray[Any], box: Box) -> NDArray[Any]:
    """Return the part of an array ``(y, x, ...)`` in a rectangle, mirrored beyond the borders."""
    shape = array.shape[0], array.shape[1]
    region = Box(*(mirrored_region(side, length) for side, length in zip(box, shape, strict=True)))
    return extend(array[region.slices], region, box, shape)


def around(places: NDArray[np.float64], margin_px: int) -> Box:
    """Return the rectangle of all places ``(2, y, x)`` and so many pixels around them."""
    sides = (
        Interval(int(np.floor(axis.min())) - margin_px, int(np.ceil(axis.max())) + margin_px + 1)
        for axis in places
    )
    return Box(*sides)


def class_counts(
    images: Sequence[Labelled], names: Sequence[str], validation: Sequence[Labelled] = ()
) -> tuple[int, ...]:
    """Return the pixels of each class in all images.

    Args:
        images: The training images.
        names: Name of each class, the background first.
        validation: Images that may show a missing class, but are not learnt from.

    Raises:
        SettingError: A class has none, or there are more classes than names.
    """
    counts = np.zeros(256, np.int64)
    for image in images:
        counts += np.bincount(image.truth.classes.ravel(), minlength=256)
    found = int(np.flatnonzero(counts).max()) + 1
    if found > len(names):
        raise SettingError(
            f"labels have classes 0 to {found - 1}, and {len(names)} names are given "
            f"({', '.join(names)}); name each class"
        )
    for number, name in enumerate(names):
        if counts[number] > 0:
            continue
        if any((image.truth.classes == number).any() for image in validation):
            raise SettingError(
                f"class {number} ({name}) is shown only by images that are measured on, not learnt "
                "from; give another seed, a smaller validation share or more images that show it"
            )
        raise SettingError(
            f"class {number} ({name}) is missing in all {len(images)} label images; "
            "number the classes without holes, or add an image that shows it"
        )
    return tuple(int(count) for count in counts[: len(names)])


def digest_of(*sets: Sequence[Labelled]) -> str:
    """Return a hash of all pixels and of what they show, in their order."""
    digest = hashlib.sha256()
    for images in sets:
        digest.update(f"{len(images)} images".encode())
        for image in images:
            for array in (image.pixels, image.truth.classes, image.truth.objects):
                digest.update(f"{array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def weight_maps(
    images: Sequence[Labelled], counts: Sequence[int], weight_map: WeightMap
) -> list[NDArray[np.float32]]:
    """Return the weights ``(y, x)`` of each image.

    Args:
        images: The training images.
        counts: Pixels of each class in all of them.
        weight_map: How pixels are weighted.
    """
    class_weights = weight_map.class_weights(counts)
    return [
        weight_map.of(image.truth.classes, image.truth.objects, class_weights) for image in images
    ]
