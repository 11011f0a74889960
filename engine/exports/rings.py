"""Simple rings: none touches itself."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .outlines import Points


def polygon(outlines: list[Points]) -> list[Points]:
    """Return the rings of a connected region, the outer one first, then its holes.

    Where two pixels of the region touch by a corner only, the outline passes that point twice.
    It is cut there: what was a bay becomes a hole that touches the outer ring in one point.
    """
    rings = [ring for outline in outlines for ring in simple_rings(outline)]
    if len(rings) == 1:
        return rings
    outer = next(number for number, ring in enumerate(rings) if twice_area(ring) > 0)
    return [rings[outer], *rings[:outer], *rings[outer + 1 :]]


def simple_rings(outline: Points) -> Iterator[Points]:
    """Yield an outline cut at the points that it passes twice.

    >>> eight = np.array([[1, 0], [1, 1], [0, 1], [0, 2], [1, 2], [1, 1], [2, 1], [2, 0]], np.int32)
    >>> [ring.tolist() for ring in simple_rings(eight)]
    [[[1, 1], [0, 1], [0, 2], [1, 2]], [[1, 0], [1, 1], [2, 1], [2, 0]]]
    """
    places = _places(outline)
    ordered = np.sort(places)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        yield outline
        return
    # Between the points passed twice the outline is never cut: these stretches are moved whole.
    cuts = np.flatnonzero(np.isin(places, twice))
    stretches = np.split(outline, cuts)
    kept = [stretches[0]]
    position: dict[int, int] = {}
    for place, stretch in zip(places[cuts].tolist(), stretches[1:], strict=True):
        if place in position:
            start = position.pop(place)
            yield np.concatenate(kept[start:])
            for cut in kept[start + 1 :]:
                position.pop(int(_places(cut[:1])[0]), None)
            del kept[start:]
        position[place] = len(kept)
        kept.append(stretch)
    yield np.concatenate(kept)


def twice_area(ring: Points) -> int:
    """Return twice the signed area that a ring encloses, positive for an outer ring."""
    x, y = ring.astype(np.int64).T
    return int(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])


def _places(points: Points) -> NDArray[np.int64]:
    """Return one number for each point."""
    return (points[:, 1].astype(np.int64) << 32) | points[:, 0]
