"""Which plane is meant where a file or an array holds more than one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...tiler.errors import ImageError, SettingError

_Z_NAMES = ("z", "depth")
_T_NAMES = ("t", "time")


@dataclass(frozen=True, slots=True)
class Choice:
    """One plane of a stack, one image of several; everything counts from 0."""

    page: int | None = None
    """Plane, counted in stored order over all stack axes that ``z`` and ``t`` do not choose."""
    series: int | None = None
    """Image of a file that holds several."""
    z: int | None = None
    """Index along the axis named z."""
    t: int | None = None
    """Index along the axis named t."""

    def __post_init__(self) -> None:
        for name in ("page", "series", "z", "t"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or value < 0):
                raise SettingError(f"{name} counts from 0; got {name}={value}; use 0 or more")

    def image_of(self, count: int, image: str, contents: str) -> int | None:
        """Return the chosen image of ``count``, ``None`` if none is chosen.

        Raises:
            SettingError: There are fewer.
        """
        if self.series and count == 1:
            raise SettingError(f"series={self.series}: {image} holds one image; leave series out")
        if self.series is not None and self.series >= count:
            raise SettingError(
                f"series={self.series} is not in {image}; it holds {contents}; "
                f"use {_range('series', count)}"
            )
        return self.series

    def plane_of(
        self, names: Sequence[str], lengths: Sequence[int], image: str, contents: str
    ) -> tuple[int, ...]:
        """Return the index along each stack axis, that is, all but y, x and channel.

        An index of 0 is right where there is no such axis.

        Args:
            names: Names of the stack axes, in stored order.
            lengths: Their lengths.
            image: What the image is called, for errors.
            contents: All its axes and lengths, for errors.

        Raises:
            ImageError: More than one plane is left.
            SettingError: The chosen plane is not there.
        """
        picked: dict[int, int] = {}
        kinds = [_kind(name) for name in names]
        for kind, index in (("z", self.z), ("t", self.t)):
            if index is None:
                continue
            if kind in kinds:
                picked[kinds.index(kind)] = index
                _check_inside(kind, index, lengths[kinds.index(kind)], image, contents)
            elif index:
                raise SettingError(
                    f"{kind}={index}: {image} has no axis {kind.upper()}, but {contents}; "
                    + _instead(kind, math.prod(lengths))
                )
        left = [axis for axis in range(len(names)) if axis not in picked]
        count = math.prod(lengths[axis] for axis in left)
        if self.page is None and count > 1:
            ways = [_range(kinds[a], lengths[a]) for a in left if kinds[a] and lengths[a] > 1]
            raise ImageError(
                f"one plane of a stack is read at a time; {image} has the axes {contents}; choose "
                f"it with {' and '.join(ways)}{', or ' if ways else ''}{_range('page', count)}"
            )
        rest = self.page or 0
        if rest and count == 1:
            raise SettingError(
                f"page={rest}: one plane is left of {image}, which has the axes {contents}; "
                "leave page out"
            )
        _check_inside("page", rest, count, image, contents)
        for axis in reversed(left):
            rest, picked[axis] = divmod(rest, lengths[axis])
        return tuple(picked[axis] for axis in range(len(names)))


def listed(names: Sequence[str], lengths: Sequence[int]) -> str:
    """Return axes for people.

    >>> listed("ZYX", (5, 20, 30))
    'Z (5), Y (20), X (30)'
    """
    return ", ".join(f"{name} ({length})" for name, length in zip(names, lengths, strict=True))


def _kind(name: str) -> str | None:
    lower = name.lower()
    return "z" if lower in _Z_NAMES else "t" if lower in _T_NAMES else None


def _instead(name: str, planes: int) -> str:
    return f"leave {name} out" if planes == 1 else f"use {_range('page', planes)}"


def _check_inside(name: str, index: int, length: int, image: str, contents: str) -> None:
    if index >= length:
        raise SettingError(
            f"{name}={index} is not in {image}, which has the axes {contents}; "
            f"use {_range(name, length)}"
        )


def _range(name: str | None, length: int) -> str:
    return f"{name}=0" if length == 1 else f"{name}=0 to {length - 1}"
