"""Outlines of labelled regions, traced in bands from top to bottom."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..stitcher.store import ZarrArray
from .corners import Corners, Integers, find_corners

Points: TypeAlias = NDArray[np.int32]
"""Corners ``(corner, xy)`` in pixels, in the order that keeps the region on the same side: the
outer ring has a positive area in ``x, y``, a hole a negative one."""

STRIP_PX = 1 << 23
"""Pixels that are read at a time, so that chunks are read seldom more than once."""

PIECE_PX = 1 << 19
"""Pixels whose corners are found at a time: in noise there are three for each."""

BAND_CORNERS = 1 << 18
"""Corners that are joined at a time, some 200 bytes each: many rows of cells, few of noise."""


@dataclass(slots=True)
class Region:
    """Pixels of one label connected by their sides, as far as they are known."""

    label: int
    """The label."""
    rings: list[Points] = field(default_factory=list)
    """Outlines that are closed: the outer one and those of the holes, in any order."""
    chains: list[list[Points]] = field(default_factory=list)
    """Outlines that go on below the last band, each in pieces."""


class _Links(NamedTuple):
    """How the horizontal sides of a band, and the chains from above it, follow one another."""

    following: list[int]
    """For each chain and then each side the next; -1 where it lies below the band."""
    open_starts: list[int]
    """Those that nothing leads to."""
    same_region: list[tuple[int, int]]
    """Pairs, one for each place where a run of pixels joins two outlines."""


def trace(
    labels: ZarrArray, skipped: tuple[int, ...], strip_px: int = STRIP_PX
) -> Iterator[Region]:
    """Yield every region when its last row is passed.

    What is kept is one strip of pixels, the corners of one band, and the outlines, 8 bytes a
    corner, of the regions that its last row crosses; so memory depends on what is open, not on the
    image's size.

    Args:
        labels: Labels ``(y, x)``.
        skipped: Labels that get no outline.
        strip_px: Pixels read at a time; at least one row, at most one row of chunks.
    """
    open_regions: list[Region] = []
    for corners in _bands(labels, skipped, strip_px):
        regions = _advance(open_regions, corners, labels.shape[0])
        open_regions = [region for region in regions if region.chains]
        yield from (region for region in regions if not region.chains)


def _bands(labels: ZarrArray, skipped: tuple[int, ...], strip_px: int) -> Iterator[Corners]:
    """Yield the corners of bands of rows, ``BAND_CORNERS`` each unless one row alone has more.

    No band is higher than the strip of pixels it is read from.
    """
    for top, strip in _strips(labels, strip_px):
        rows = max(1, PIECE_PX // strip.shape[1])
        held: list[Corners] = []
        for first in range(0, len(strip) - 1, rows):
            found = find_corners(strip[first : first + rows + 1], top + first, skipped)
            for corners in _cut(found):
                if held and sum(len(each.x) for each in (*held, corners)) > BAND_CORNERS:
                    yield _joined(held)
                    held = []
                held.append(corners)
        yield _joined(held)


def _strips(labels: ZarrArray, strip_px: int) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Yield rows of pixels and the row of the lattice above them, the row above them included.

    Around the image there are pixels of the label 0.
    """
    height, width = labels.shape
    chunk_height = labels.chunks[0]
    rows = max(1, chunk_height // -(-chunk_height * width // strip_px))
    above = np.zeros(width + 2, labels.dtype)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # The row of the lattice below the last pixels belongs to the last strip.
        strip = np.zeros((1 + bottom - top + (bottom == height), width + 2), labels.dtype)
        strip[0] = above
        strip[1 : 1 + bottom - top, 1:-1] = np.asarray(labels[top:bottom])
        above = strip[-1].copy()
        yield top, strip


def _cut(corners: Corners) -> Iterator[Corners]:
    """Yield corners cut between rows into parts of about ``BAND_CORNERS``."""
    if len(corners.x) <= BAND_CORNERS:
        yield corners
        return
    order = np.argsort(corners.y, kind="stable")
    y = corners.y[order]
    start = 0
    while start < len(y):
        stop = start + BAND_CORNERS
        if stop < len(y):
            stop = int(np.searchsorted(y, y[stop]))
        if stop == start:  # one row alone has more
            stop = int(np.searchsorted(y, y[start], side="right"))
        yield Corners._make(values[order[start:stop]] for values in corners)
        start = stop


def _joined(parts: list[Corners]) -> Corners:
    return Corners(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _advance(open_regions: list[Region], corners: Corners, height: int) -> list[Region]:
    """Return the regions there are after a band; those without chains are complete."""
    chains = [chain for region in open_regions for chain in region.chains]
    chain_regions = [n for n, region in enumerate(open_regions) for _ in region.chains]
    sides, points, side_labels = _horizontal_sides(corners)
    links = _link(corners, sides, chains, height)

    paths, owner = _walk(links)
    parents = list(range(len(open_regions) + len(paths)))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    first_path = len(open_regions)
    for chain, number in enumerate(chain_regions):
        parents[root(first_path + owner[chain])] = root(number)
    for one, other in links.same_region:
        parents[root(first_path + owner[one])] = root(first_path + owner[other])

    merged: dict[int, Region] = {}
    for number, region in enumerate(open_regions):
        into = merged.setdefault(root(number), Region(region.label))
        if into.rings:
            into.rings.extend(region.rings)
        else:
            into.rings = region.rings
    for number, path in enumerate(paths):
        key = root(first_path + number)
        if key not in merged:
            merged[key] = Region(int(side_labels[path[0] - len(chains)]))
        pieces = _pieces(path, chains, points)
        if number < len(links.open_starts):
            merged[key].chains.append(pieces)
        else:
            merged[key].rings.append(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
    return list(merged.values())


def _horizontal_sides(corners: Corners) -> tuple[Integers, Points, Integers]:
    """Return the side that each corner ends, and of each side its two ends in order and its label.

    The corners of one row of the lattice, with the region on one side, come in pairs.
    """
    width = int(corners.x.max(initial=0)) + 1
    order = np.argsort(
        ((corners.y * 2 + corners.below) * width + corners.x) * 2 + corners.left_end, kind="stable"
    )
    left, right = order[::2], order[1::2]
    sides = np.empty(len(order), np.int64)
    sides[left] = sides[right] = np.arange(len(left))
    below = corners.below[left]
    ends = np.stack([np.where(below, left, right), np.where(below, right, left)], axis=1)
    points = np.stack([corners.x[ends], corners.y[ends]], axis=2).astype(np.int32)
    return sides, points, corners.label[left]


def _link(corners: Corners, sides: Integers, chains: list[list[Points]], height: int) -> _Links:
    """Join the sides and the chains at the vertical sides between them.

    ::

        outgoing | top end       A  incoming, top end
                 |   region on   |  region on
                 V   the left    |  the right
        incoming | bottom end    |  outgoing, bottom end
    """
    ends = np.array([(*chain[0][0], *chain[-1][-1]) for chain in chains], np.int64).reshape(
        -1, 2, 2
    )
    numbers = np.arange(len(chains))
    top = np.ones(len(chains), np.bool_)
    x = np.concatenate([ends[:, 0, 0], ends[:, 1, 0], corners.x])
    y = np.concatenate([ends[:, 0, 1], ends[:, 1, 1], corners.y])
    right = np.concatenate([top, ~top, corners.right])
    top_end = np.concatenate([top, top, corners.top_end])
    item = np.concatenate([numbers, numbers, sides + len(chains)])

    keys = _vertical_key(x, right, y, top_end, height)
    order = np.argsort(keys, kind="stable")
    keys, right, top_end, item = keys[order], right[order], top_end[order], item[order]
    bottom = np.flatnonzero(~top_end)
    lower, upper = item[bottom], item[bottom - 1]  # a lower end follows its upper one
    downward = ~right[bottom]
    following = np.full(len(chains) + len(sides) // 2, -1, np.int64)
    following[np.where(downward, upper, lower)] = np.where(downward, lower, upper)
    led_to = np.zeros(len(following), np.bool_)
    led_to[following[following >= 0]] = True

    asked = np.flatnonzero(corners.run_start >= 0)
    key = _vertical_key(corners.run_start[asked], np.True_, corners.y[asked], np.True_, height)
    border = item[np.searchsorted(keys, key, side="right") - 1]
    pairs = zip((sides[asked] + len(chains)).tolist(), border.tolist(), strict=True)
    return _Links(following.tolist(), np.flatnonzero(~led_to).tolist(), list(pairs))


def _vertical_key(
    x: Integers,
    right: NDArray[np.bool_] | np.bool_,
    y: Integers,
    top_end: NDArray[np.bool_] | np.bool_,
    height: int,
) -> Integers:
    """Return numbers that sort by column, then by the region's side, then downwards."""
    return ((x * 2 + right) * (height + 1) + y) * 2 + top_end


def _walk(links: _Links) -> tuple[list[list[int]], list[int]]:
    """Return the paths, those first that end below the band, and the path that each is on."""
    following = links.following
    owner = [-1] * len(following)
    paths: list[list[int]] = []
    for start in (*links.open_starts, *range(len(following))):
        if owner[start] >= 0:
            continue
        number, path, here = len(paths), [], start
        while here >= 0 and owner[here] < 0:
            owner[here] = number
            path.append(here)
            here = following[here]
        paths.append(path)
    return paths, owner


def _pieces(path: list[int], chains: list[list[Points]], points: Points) -> list[Points]:
    """Return the corners along a path."""
    if min(path) >= len(chains):
        return [points[np.array(path) - len(chains)].reshape(-1, 2)]
    pieces: list[Points] = []
    sides: list[int] = []
    for item in path:
        if item >= len(chains):
            sides.append(item - len(chains))
            continue
        if sides:
            pieces.append(points[sides].reshape(-1, 2))
            sides = []
        pieces.extend(chains[item])
    if sides:
        pieces.append(points[sides].reshape(-1, 2))
    return pieces
