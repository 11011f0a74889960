"""A TIFF page seen through its palette, or turned as its orientation says."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.turn import Turn
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

    def expect(self, boxes: Iterable[Box]) -> None:
        """Announce all rectangles that will be read, each once."""
        self._page.expect(boxes)


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
    """Return how stored pixels become the image, for a value of the tag Orientation.

    None for a value outside 1 to 8.
    """
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
        stored = self._turn.box_before(box, self._size)
        self._page.read_into(self._turn.undo(out), stored, samples)

    def expect(self, boxes: Iterable[Box]) -> None:
        """Announce all rectangles that will be read, each once."""
        self._page.expect(self._turn.box_before(box, self._size) for box in boxes)
