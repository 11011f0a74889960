"""Which image of a TIFF file is meant, and on which pages its channels lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...tiler.errors import ImageError, SettingError
from .choice import Choice, listed

_KEPT_AXES = {"YX": "YX", "YXS": "YXC", "YXC": "YXC", "SYX": "CYX", "CYX": "CYX"}
_MOST_LISTED = 8
_REDUCED_OR_MASK = 1 | 4
_MORE_PAGES = 16
"""A file may be cut short: what is missing of a few pages is told when they are read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One plane of a series."""

    axes: str
    """Axes as stored: ``YX``, ``YXC`` or ``CYX``."""
    size: tuple[int, int]
    """Stored height and width in pixels."""
    channels: int
    """Number of channels."""
    pages: tuple[int, ...]
    """Numbers, inside the series, of the pages whose samples are the channels."""


def chosen_series(tiff: Any, choice: Choice, path: str) -> int:
    """Return the number of the image to open.

    Without a choice it is the first, if the others are smaller (thumbnail, label), reduced
    versions or masks of it, or if the format calls it the baseline of a slide.

    Raises:
        ImageError: There is none, or there are several and none is chosen.
        SettingError: The chosen one is not there.
    """
    series = tiff.series
    if not series:
        raise ImageError(f"{path} holds no image; get a good copy")
    contents = _contents(series)
    chosen = choice.image_of(len(series), path, contents)
    if chosen is not None:
        return chosen
    first = _area(series[0])
    rivals = [s for s in series[1:] if _area(s) >= first and not _serves_another(s)]
    if rivals and series[0].name != "Baseline":
        raise ImageError(
            f"one image of a file is read at a time; {path} holds {contents}; "
            f"choose it with series=0 to {len(series) - 1}"
        )
    return 0


def layout_of(series: Any, choice: Choice, axes: str | None, path: str) -> Layout:
    """Return where the chosen plane of a series lies.

    Args:
        series: A ``tifffile.TiffPageSeries``, or one of its levels.
        choice: The plane, for a stack.
        axes: Names for the file's axes of length above 1; its own where ``None``.
        path: For errors.

    Raises:
        ImageError: It is no image, or a stack without a choice.
        SettingError: The plane is not there, or ``axes`` contradicts the file.
    """
    names, shape = squeezed(series)
    if axes is not None:
        names = _renamed(names, shape, axes, path)
    found = _listed(names, shape)
    keyframe = series.keyframe
    kept = "".join(name for name in names if name in "YXCS")
    if 0 in shape:
        raise ImageError(f"an image needs pixels; {path} has {found}; get a good copy")
    if keyframe.imagedepth != 1:
        raise ImageError(
            f"a page must hold one plane; {path} has pages of {keyframe.imagedepth} planes "
            f"({found}); save it with one page per plane"
        )
    if kept not in _KEPT_AXES:
        raise ImageError(
            f"an image has the axes Y, X and at most one for channels (C or S); {path} has "
            f"{found}; save one plane of it"
        )
    size = shape[names.index("Y")], shape[names.index("X")]
    planes, depth, height, width, interleaved = keyframe.shaped
    per_page = planes * interleaved
    channels = math.prod(n for name, n in zip(names, shape, strict=True) if name in "CS")
    whole_pages = depth == 1 and (height, width) == size and channels % per_page == 0
    if not whole_pages or ("S" in names and channels != per_page) or series.transform is not None:
        raise ImageError(
            f"pages must hold whole channels; {path} has pages {keyframe.shape} for an image "
            f"{series.shape}; convert it to a tiled TIFF"
        )
    count = channels // per_page
    stack = [(name, n) for name, n in zip(names, shape, strict=True) if name not in "YXCS"]
    picked = choice.plane_of([name for name, _ in stack], [n for _, n in stack], path, found)
    index = {name: i for (name, _), i in zip(stack, picked, strict=True)}
    first, stride, channel_stride = 0, 1, 0
    for name, length in zip(reversed(names), reversed(shape), strict=True):
        if name in "YXS":
            continue
        if name == "C":
            channel_stride = stride
            stride *= count
            continue
        first += index[name] * stride
        stride *= length
    there = _pages_there(series)
    if count > there:
        raise ImageError(
            f"each channel needs its place in the file; {path} has {found}, and at most {there} "
            "pages; get a good copy"
        )
    pages = tuple(first + i * channel_stride for i in range(count))
    return Layout(_KEPT_AXES[kept], size, channels, pages)


def _pages_there(series: Any) -> int:
    """Return an upper bound for the pages that a file has, whatever its description says."""
    keyframe = series.keyframe
    if keyframe.is_final and series.dataoffset:  # without entries of their own
        return int(keyframe.parent.filehandle.size // max(1, keyframe.nbytes)) + _MORE_PAGES
    return len(keyframe.parent.pages) + _MORE_PAGES


def squeezed(series: Any) -> tuple[str, tuple[int, ...]]:
    """Return axes and lengths without the axes of length 1 that are neither y nor x."""
    kept = [
        (axis, length)
        for axis, length in zip(series.axes, series.shape, strict=True)
        if length != 1 or axis in "YX"
    ]
    return "".join(axis for axis, _ in kept), tuple(length for _, length in kept)


def alike(series: Any, other: Any) -> bool:
    """Say whether two series differ in nothing but height and width."""

    def key(one: Any) -> tuple[Any, ...]:
        names, shape = squeezed(one)
        lengths = [n for name, n in zip(names, shape, strict=True) if name not in "YX"]
        return names, lengths, one.keyframe.dtype, one.keyframe.photometric == 3

    return key(series) == key(other)


def _renamed(names: str, shape: Sequence[int], axes: str, path: str) -> str:
    """Return ``axes`` if they leave y, x and samples where the file has them."""
    wanted = axes.upper()
    fixed = all(
        new == old or (old == "S" and new == "C")
        for old, new in zip(names, wanted, strict=False)
        if old in "YXS" or new in "YXS"
    )
    if len(wanted) != len(names) or not fixed or len(set(wanted)) != len(wanted):
        others = sum(name not in "YXS" for name in names)
        letters = iter("ZT" if "S" in names else "CZT")
        example = "".join(name if name in "YXS" else next(letters, name) for name in names)
        raise SettingError(
            f"axes may rename the axes of a stack, not Y, X or S; {path} names its own axes "
            f"{_listed(names, shape)} and axes={axes!r} was given; leave axes out"
            + (f", or rename the others, such as axes={example!r}" if others else "")
        )
    return "".join("S" if old == "S" else new for old, new in zip(names, wanted, strict=True))


def _listed(names: str, shape: Sequence[int]) -> str:
    """Return axes for people; ``Q`` is what tifffile calls an axis that the file does not name."""
    return listed(["unnamed" if name == "Q" else name for name in names], shape)


def _area(series: Any) -> int:
    names, shape = squeezed(series)
    return math.prod(shape[names.index(axis)] for axis in "YX" if axis in names)


def _serves_another(series: Any) -> bool:
    return bool(int(series.keyframe.subfiletype) & _REDUCED_OR_MASK)


def _contents(series: Sequence[Any]) -> str:
    texts = [
        f"series {number}: {_listed(*squeezed(one))}{' ' if one.name else ''}{one.name}"
        for number, one in enumerate(series[:_MOST_LISTED])
    ]
    more = len(series) - len(texts)
    return "; ".join(" ".join(t.split()) for t in texts) + (f"; and {more} more" if more else "")
