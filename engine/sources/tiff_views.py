"""A TIFF page seen through its palette, or turned as its orientation says."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box, Interval
from .tiff_pages import PageReader, Place


class PalettePage:
    """A page of indices, read as colours."""

    def __init__(
        self,
        page: PageReader,
        colours: NDArray[np.generic],
        stored: np.dtype[np.generic],
        place: Place,
    ) -> None:
        self._page = page
        self._colours = colours
        self._place = place
        # Indices are unsigned, whatever a writer says about their sign.
        self._index = np.dtype(f"u{stored.itemsize}")
        self.samples = colours.shape[1]
        self.segment = page.segment

    def read_into(self, out: NDArray[Any], box: Box, samples: tuple[int, ...]) -> None:
        """Write a rectangle's colours into ``out``, ``(y, x, sample)``."""
        indices = np.empty((*box.shape, 1), self._index)
        self._page.read_into(indices, box, (0,))
        if indices.size and int(indices.max()) >= len(self._colours):
            why = f"its palette has {len(self._colours)} colours, not {int(indices.max()) + 1}"
            raise self._place.broken(box.y.start, box.y.stop, box.x.start, box.x.stop, why)
        out[...] = self._colours[:, samples][indices[..., 0]]


@dataclass(frozen=True, slots=True)
class Turn:
    """How stored pixels become the image: transposed first, then flipped."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    @property
    def is_none(self) -> bool:
        """Whether the image is as stored."""
        return not (self.transpose or self.flip_y or self.flip_x)

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the image."""
        return (stored[1], stored[0]) if self.transpose else stored

    def box(self, box: Box, size: tuple[int, int]) -> Box:
        """Return where a rectangle of the image, ``size`` large, is stored."""
        y = _flipped(box.y, size[0]) if self.flip_y else box.y
        x = _flipped(box.x, size[1]) if self.flip_x else box.x
        return Box(x, y) if self.transpose else Box(y, x)

    def as_stored(self, out: NDArray[Any]) -> NDArray[Any]:
        """Return a view of ``out``, ``(y, x, sample)``, in stored order."""
        view = out[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return view.transpose(1, 0, 2) if self.transpose else view


_TURNS = {
    2: Turn(flip_x=True),
    3: Turn(flip_y=True, flip_x=True),
    4: Turn(flip_y=True),
    5: Turn(transpose=True),
    6: Turn(transpose=True, flip_x=True),
    7: Turn(transpose=True, flip_y=True, flip_x=True),
    8: Turn(transpose=True, flip_y=True),
}


def turn_of(orientation: Any) -> Turn:
    """Return the turn for a value of the tag Orientation; none for a value outside 1 to 8."""
    return _TURNS.get(orientation, Turn()) if isinstance(orientation, int) else Turn()


class TurnedPage:
    """A page read in the orientation it is to be seen in."""

    def __init__(self, page: PageReader, turn: Turn, stored: tuple[int, int]) -> None:
        self._page = page
        self._turn = turn
        self._size = turn.size(stored)
        self.samples = page.samples
        self.segment = None if page.segment is None else turn.size(page.segment)

    def read_into(self, out: NDArray[Any], box: Box, samples: tuple[int, ...]) -> None:
        """Write a rectangle's samples into ``out``, ``(y, x, sample)``."""
        self._page.read_into(self._turn.as_stored(out), self._turn.box(box, self._size), samples)


def _flipped(interval: Interval, length: int) -> Interval:
    return Interval(length - interval.stop, length - interval.start)
