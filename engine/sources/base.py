"""What the engine asks of an image: facts about it, and the pixels of a rectangle."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from .georeference import Georeference
from .segment_cache import SegmentCache


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image."""

    shape: tuple[int, int]
    """Height and width in pixels."""
    pixel_size: tuple[float, float] | None = None
    """Height and width of a pixel in ``ImageFacts.unit``; ``None`` where the file does not say."""
    segment: tuple[int, int] | None = None
    """Height and width of what is decoded as one piece (TIFF tile or strip, chunk); ``None`` where
    a rectangle costs no more than its own pixels."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known about an image before a pixel is read."""

    name: str
    """File name without folder, or ``array``."""
    dtype: str
    """NumPy name of the pixel type, e.g. ``uint8``."""
    channels: int
    """Number of channels; 1 for a grey image."""
    axes: str
    """Axes as stored, e.g. ``YX``, ``YXC``, ``CYX``."""
    levels: tuple[Level, ...]
    """Resolutions, level 0 first."""
    identity: str
    """Hash of size, header and sampled bytes; the same for a copy under another path."""
    unit: str | None = None
    """Unit of ``Level.pixel_size`` in OME's words, e.g. ``micrometer``."""
    alpha: int | None = None
    """The channel that is transparency, not data; ``None`` where no channel is known to be."""
    georeference: Georeference | None = None
    """Where level 0 lies on the earth; ``None`` where the file does not say."""
    nodata: float | None = None
    """Value of the pixels that hold no data, of each channel alone; ``None`` where none is stated.
    NaN holds no data anywhere."""
    doubts: tuple[str, ...] = ()
    """What the user should know of how the file is read."""


class Source(Protocol):
    """An opened image. ``read`` may be called from several threads at once."""

    @property
    def facts(self) -> ImageFacts:
        """Facts about the image."""
        ...

    def read(
        self, level: int, box: Box, channels: tuple[int, ...] | None = None
    ) -> NDArray[np.generic]:
        """Return the pixels of ``box``, which lies inside the level, decoding nothing beyond need.

        Args:
            level: Resolution to read from.
            box: Rectangle in pixels of that level.
            channels: Channels to return, in this order; all where ``None``.

        Returns:
            Array ``(y, x, channel)`` in the image's own dtype, native byte order.

        Raises:
            ImageError: The file is broken there; the text names the place.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@runtime_checkable
class SegmentedSource(Source, Protocol):
    """An image that is decoded in segments, which are kept for the next rectangle."""

    cache: SegmentCache
    """What is kept."""

    def expect(self, level: int, boxes: Iterable[Box]) -> None:
        """Announce all that will be read of a level from now on.

        A segment is dropped with the last rectangle that needs it.

        Args:
            level: Resolution that is read.
            boxes: Rectangles, each read once, in any order.
        """
        ...
