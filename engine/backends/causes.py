"""Count the parts of a network whose answer depends on the tile's size."""

from collections import Counter
from collections.abc import Iterable

ATTENTION = "attention over the tile"
PLACES = "a constant that differs from place to place"


def counted(parts: Iterable[str]) -> tuple[str, ...]:
    """Return each part once, in order, with how often it is there.

    >>> counted(["mean over y and x", "attention over the tile", "mean over y and x"])
    ('mean over y and x (2x)', 'attention over the tile')
    """
    numbers = Counter(parts)
    return tuple(name if n == 1 else f"{name} ({n}x)" for name, n in numbers.items())


def is_over_tile(axes: Iterable[int], rank: int) -> bool:
    """Say whether axes of a ``(batch, channel, y, x)`` or ``(batch, y, x, channel)`` span places.

    The third axis lies along the image in both.
    """
    return rank == 4 and 2 in {axis % rank for axis in axes}


def lies_along_tile(shape: Iterable[int], rank: int) -> bool:
    """Say whether a constant of a shape, put upon a tensor of ``rank`` axes, covers places."""
    sizes = list(shape)
    sizes = [1] * (rank - len(sizes)) + sizes
    if rank == 4:
        return sizes[2] > 1
    return rank == 3 and sizes[1] > 1 and sizes[2] > 1  # (batch, place, feature)
