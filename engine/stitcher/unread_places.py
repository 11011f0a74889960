"""The places of an image that could not be decoded, kept with the blocks that needed them."""

from collections.abc import Collection, Iterable
from typing import Any

import zarr

from ...tiler.box import Box
from ..unread import Unread

_GROUP = "unread"


def write_unread(ours: zarr.Group, block: int, unread: Unread) -> None:
    """Store what a block lacks, in a group of its own: blocks are written side by side."""
    attributes = {"pixels": unread.pixels, "places": _plain(unread.places)}
    ours.create_group(f"{_GROUP}/{block}", overwrite=True, attributes=attributes)


def read_unread(ours: zarr.Group, blocks: Collection[int] | None = None) -> dict[int, Unread]:
    """Return what was stored, by block: of some blocks, while others are written, or of all."""
    groups = ours.get(_GROUP)
    if not isinstance(groups, zarr.Group):
        return {}
    if blocks is None:
        return {int(name): _unread(group.attrs.asdict()) for name, group in groups.groups()}
    found = ((block, groups.get(str(block))) for block in blocks)
    return {
        block: _unread(group.attrs.asdict())
        for block, group in found
        if isinstance(group, zarr.Group)
    }


def all_places(unread: Iterable[Unread]) -> list[dict[str, list[int]]]:
    """Return the places of all blocks, each once, row by row."""
    return _plain(sorted({place for each in unread for place in each.places}))


def _plain(places: Iterable[Box]) -> list[dict[str, list[int]]]:
    return [{"y": list(place.y.ends), "x": list(place.x.ends)} for place in places]


def _unread(plain: dict[str, Any]) -> Unread:
    places = tuple(Box.of(*place["y"], *place["x"]) for place in plain["places"])
    return Unread(places, plain["pixels"])
