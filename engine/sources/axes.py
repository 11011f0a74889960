"""Which stored axis of an array is y, x and channel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, SettingError
from .choice import Choice, listed

MOST_CHANNELS_GUESSED = 4
"""An unnamed axis up to this length, beside two longer ones, is taken for the channels."""

_LETTERS = {
    "y": "Y",
    "x": "X",
    **dict.fromkeys(("lat", "latitude"), "Y"),
    **dict.fromkeys(("lon", "longitude"), "X"),
    **dict.fromkeys(("c", "channel", "channels", "band", "bands", "s", "sample", "samples"), "C"),
}
_DROPPED = "."


@dataclass(frozen=True, slots=True)
class AxisOrder:
    """The meaning of each stored axis."""

    letters: str
    """One of ``Y``, ``X``, ``C`` per stored axis, ``.`` for one of which one index is kept."""
    shape: tuple[int, ...]
    """Length of each stored axis."""
    picked: tuple[int, ...] = ()
    """The index kept of each axis ``.``, in stored order; 0 of each where empty."""

    @property
    def axes(self) -> str:
        """The axes that are kept, e.g. ``CYX``."""
        return self.letters.replace(_DROPPED, "")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.length("Y"), self.length("X")

    @property
    def channels(self) -> int:
        """Number of channels; 1 without a channel axis."""
        return self.length("C")

    def length(self, letter: str, of: Sequence[int] | None = None) -> int:
        """Return the entry of ``of`` (the shape, if ``None``) for an axis, 1 if it is not there."""
        lengths = self.shape if of is None else of
        return lengths[self.letters.index(letter)] if letter in self.letters else 1

    def index(self, box: Box, channels: slice | Sequence[int]) -> tuple[Any, ...]:
        """Return the index of a rectangle and its channels in the stored array."""
        of_axis = {
            "Y": box.y.as_slice(),
            "X": box.x.as_slice(),
            "C": channels if isinstance(channels, slice) else list(channels),
        }
        picked = iter(self.picked or (0,) * self.letters.count(_DROPPED))
        return tuple(
            slice(at := next(picked), at + 1) if letter == _DROPPED else of_axis[letter]
            for letter in self.letters
        )

    def to_yxc(self, pixels: NDArray[np.generic], dtype: np.dtype[np.generic]) -> NDArray[Any]:
        """Return what ``index`` selected as a new contiguous array ``(y, x, channel)``."""
        dropped = tuple(i for i, letter in enumerate(self.letters) if letter == _DROPPED)
        kept = np.squeeze(pixels, axis=dropped)
        axes = self.axes
        if "C" not in axes:
            kept, axes = kept[..., None], axes + "C"
        return np.array(kept.transpose([axes.index(a) for a in "YXC"]), dtype=dtype, order="C")


def named_axes(
    names: Sequence[str], shape: Sequence[int], image: str, choice: Choice | None = None
) -> AxisOrder:
    """Return the order of axes that carry names, such as ``("t", "c", "y", "x")``.

    Axes other than y, x and channel make a stack, of which ``choice`` keeps one plane.

    Raises:
        ImageError: There is no y or x, a name comes twice, or a stack comes without a choice.
        SettingError: The chosen plane is not there.
    """
    if len(names) != len(shape):
        raise ImageError(
            f"every axis of {image} needs a name; got {len(names)} names for {len(shape)} axes"
        )
    letters = "".join(_LETTERS.get(name.lower(), _DROPPED) for name in names)
    found = listed(names, shape)
    if any(letters.count(a) != 1 for a in "YX") or letters.count("C") > 1:
        raise ImageError(
            f"an image has the axes y, x and at most one for channels; {image} has {found}; "
            "pass one plane of it"
        )
    stack = [i for i, letter in enumerate(letters) if letter == _DROPPED]
    picked = (choice or Choice()).plane_of(
        [names[i] for i in stack], [shape[i] for i in stack], image, found
    )
    return _checked(AxisOrder(letters, tuple(shape), picked), image)


def guessed_axes(shape: Sequence[int], image: str, choice: Choice | None = None) -> AxisOrder:
    """Return the order of unnamed axes, told by their lengths.

    Two axes are ``(y, x)``. Of three, the first or the last holds the channels if it is at most
    four long and both others are longer. Leading axes of length 1 beyond three are dropped.

    Raises:
        ImageError: The lengths do not tell.
        SettingError: Another plane than the first is chosen; that needs names.
    """
    if choice is not None and any((choice.page, choice.z, choice.t)):
        raise SettingError(
            f"a plane can only be chosen along axes with names; {image} has shape {tuple(shape)} "
            "without names; give them, as axes='ZYX' or 'TCZYX'"
        )
    extra = 0
    while len(shape) - extra > 3 and shape[extra] == 1:
        extra += 1
    kept = tuple(shape[extra:])
    if len(kept) == 2:
        return _checked(AxisOrder("YX", kept), image)
    if len(kept) == 3:
        if kept[0] <= MOST_CHANNELS_GUESSED < min(kept[1:]):
            return _checked(AxisOrder(_DROPPED * extra + "CYX", tuple(shape)), image)
        if kept[2] <= MOST_CHANNELS_GUESSED < min(kept[:2]):
            return _checked(AxisOrder(_DROPPED * extra + "YXC", tuple(shape)), image)
    hint = "say which axis is which, as axes='YXC' or 'CYX'"
    if len(kept) > 3:
        hint = "name its axes, as axes='ZCYX', and choose one plane"
    raise ImageError(
        f"an unnamed array must be (y, x), (y, x, channel) or (channel, y, x) with at most "
        f"{MOST_CHANNELS_GUESSED} channels; {image} has shape {tuple(shape)}; {hint}"
    )


def _checked(order: AxisOrder, image: str) -> AxisOrder:
    if 0 in order.shape:
        raise ImageError(f"an image needs pixels; {image} has shape {order.shape}")
    return order
