"""A label image as training takes it: the class of each pixel, and the objects."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import SettingError

LabelKind = Literal["binary", "class", "instance"]
"""What the numbers of a label image are: anything but 0 is the one class; classes; objects."""

MOST_CLASSES = 255


class Truth(NamedTuple):
    """What an image shows."""

    classes: NDArray[np.uint8]
    """Class of each pixel, ``(y, x)``; 0 is the background."""
    objects: NDArray[np.int32]
    """Number of the object at each pixel, ``(y, x)``, from 1; 0 where there is none."""


def truth_of(labels: NDArray[Any], kind: LabelKind) -> Truth:
    """Return classes and objects of a label image.

    Objects are the given ones, with a gap where they touch; of binary and class labels, the pixels
    of one class that are connected by their sides.

    Args:
        labels: Whole numbers or booleans, ``(y, x)``.
        kind: What the numbers are.

    Raises:
        SettingError: The numbers cannot be that, or there is no such kind.

    >>> truth_of(np.array([[7, 7, 9, 0]]), "instance").classes.tolist()
    [[1, 0, 1, 0]]
    >>> truth_of(np.array([[255, 0, 255]]), "binary").objects.tolist()
    [[1, 0, 2]]
    """
    from scipy import ndimage

    if kind not in get_args(LabelKind):
        raise SettingError(f"label_kind={kind!r} is none of {', '.join(get_args(LabelKind))}")
    if labels.ndim != 2 or labels.dtype.kind not in "iub":
        raise SettingError(
            f"labels are whole numbers (y, x); got {labels.dtype} {labels.shape}; convert them"
        )
    if labels.dtype != bool and labels.min(initial=0) < 0:
        raise SettingError(f"labels are 0 or more; got {labels.min()}; convert them")
    if kind == "instance":
        # Numbers may have holes, and be larger than the type.
        objects = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
        objects += 0 if (labels == 0).any() else 1
        objects[touching(objects)] = 0
        return Truth((objects > 0).astype(np.uint8), objects)
    if kind == "class" and labels.max(initial=0) > MOST_CLASSES:
        raise SettingError(
            f"classes are at most {MOST_CLASSES}; got {labels.max()}; "
            "say label_kind=instance if the numbers are objects"
        )
    classes = (labels != 0).astype(np.uint8) if kind == "binary" else labels.astype(np.uint8)
    objects = np.zeros(labels.shape, np.int32)
    count = 0
    for label in np.unique(classes[classes > 0]):
        of_class, found = ndimage.label(classes == label)
        objects += np.where(of_class > 0, of_class + count, 0).astype(np.int32)
        count += found
    return Truth(classes, objects)


def touching(objects: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels that must become background so that no two objects touch.

    Where two meet, by a side or a corner, the larger one loses its outermost pixel: the gap is one
    pixel wide, and a small object loses nothing to a large one.

    Args:
        objects: Number of the object at each pixel, ``(y, x)``; 0 where there is none.

    >>> touching(np.array([[1, 1, 1, 2, 2, 0]], np.int32)).astype(int).tolist()
    [[0, 0, 1, 0, 0, 0]]
    """
    sizes = np.bincount(objects.ravel())
    sizes[0] = 0
    # The smaller an object, the lower its rank; the background's is the highest.
    rank = np.empty(sizes.size, np.int32)
    rank[np.argsort(sizes, kind="stable")] = np.arange(sizes.size, dtype=np.int32)
    rank[0] = sizes.size
    ranks = np.pad(rank[objects], 1, constant_values=sizes.size)
    height, width = objects.shape
    lost = np.zeros(objects.shape, bool)
    for y, x in np.ndindex(3, 3):
        lost |= ranks[y : y + height, x : x + width] < ranks[1:-1, 1:-1]
    return lost & (objects > 0)
