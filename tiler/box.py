"""Half-open intervals and rectangles of pixels, in integers."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """The pixels ``start <= p < stop`` of one axis; may lie outside the image.

    >>> Interval(-92, 480).size
    572
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.stop < self.start:
            raise ValueError(f"an interval needs start <= stop, got [{self.start}, {self.stop})")

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.stop - self.start

    @property
    def ends(self) -> tuple[int, int]:
        """``(start, stop)``."""
        return self.start, self.stop

    def clip(self, start: int, stop: int) -> "Interval":
        """Return the part inside ``[start, stop)``, empty where there is none."""
        begin = min(max(self.start, start), stop)
        return Interval(begin, max(begin, min(self.stop, stop)))

    def shift(self, by: int) -> "Interval":
        """Return the interval moved by ``by`` pixels."""
        return Interval(self.start + by, self.stop + by)

    def as_slice(self) -> slice:
        """Return ``slice(start, stop)``."""
        return slice(self.start, self.stop)


class Box(NamedTuple):
    """A rectangle of pixels: one interval per axis."""

    y: Interval
    x: Interval

    @classmethod
    def of(cls, y0: int, y1: int, x0: int, x1: int) -> "Box":
        """Return the rectangle ``[y0, y1) x [x0, x1)``."""
        return cls(Interval(y0, y1), Interval(x0, x1))

    def shift(self, y: int, x: int) -> "Box":
        """Return the rectangle moved by ``y`` and ``x`` pixels."""
        return Box(self.y.shift(y), self.x.shift(x))

    def clip(self, other: "Box") -> "Box":
        """Return the part inside another rectangle, empty where there is none.

        >>> Box.of(0, 4, 0, 4).clip(Box.of(2, 9, 3, 9)).shape
        (2, 1)
        """
        return Box(self.y.clip(*other.y.ends), self.x.clip(*other.x.ends))

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.y.size, self.x.size

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the rectangle in a ``(y, x, ...)`` array."""
        return self.y.as_slice(), self.x.as_slice()
