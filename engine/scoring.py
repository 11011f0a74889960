"""A mask against the truth, both read block by block, whatever their size."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from ..tiler.box import Box
from ..tiler.errors import ImageError, MissingExtraError, SettingError
from .matching import Matching
from .measures import Counts, confusion_of, counts_of, pixel_error
from .sources import Source, open_source
from .sources.zarr_files import is_zarr
from .stitcher.store import OURS

TruthKind = Literal["auto", "binary", "class", "instance"]

_BLOCK_PX, _MOST_PX = 1024, 2048
_LABELS = 256


@dataclass(frozen=True, slots=True)
class Scores:
    """How good a mask is."""

    class_names: tuple[str, ...]
    """Name of each class, the background first."""
    labels: tuple[int, ...]
    """Classes but the background that the mask names, or that occur in mask or truth."""
    confusion: NDArray[np.int64]
    """Pixels ``(found, true)``."""
    left_out: int
    """Pixels for which the mask says "not computed"; they count nowhere."""
    objects: dict[int, Counts] | None
    """Objects of each class; ``None`` where they were not asked for."""

    @property
    def pixel_error(self) -> float:
        """Share of pixels of a wrong class."""
        return pixel_error(self.confusion)

    def of(self, label: int) -> Counts:
        """Return the pixels of one class."""
        return counts_of(self.confusion, label)


def score_mask(
    mask: str | Path,
    truth: str | Path,
    *,
    kind: TruthKind = "auto",
    objects: bool = True,
    min_size: int = 1,
    iou: float = 0.5,
) -> Scores:
    """Compare a mask with the truth.

    Memory does not grow with the image, only with the number of objects.

    Args:
        mask: A mask of this package, or an image of label numbers.
        truth: An image of label numbers.
        kind: What the truth's numbers are: ``binary`` (anything but 0), ``class`` or ``instance``;
            ``auto`` takes them for binary where mask and truth have one value beside 0 each, and
            for classes where the mask has several.
        objects: Whether objects are matched as well.
        min_size: Objects of fewer pixels do not count.
        iou: Intersection over union above which two objects are the same.

    Raises:
        ImageError: One cannot be read, or their sizes differ.
        SettingError: A number is not possible, or the truth has more values than classes can have.
        MissingExtraError: Objects need SciPy, which is not installed.
    """
    if objects:
        _require_scipy()
    with closing(open_source(mask)) as found, closing(open_source(truth)) as true:
        _check(found, true, mask, truth)
        names, not_computed = _said_of(mask)
        stated = found.facts.nodata
        if not_computed is None and stated and isfinite(stated):  # 0 is the background
            not_computed = int(stated)
        if kind == "auto":
            kind = _kind_of(found, true, truth, names)
        binary = kind in ("binary", "instance")
        matching = None
        if objects:
            matching = Matching(found.facts.levels[0].shape[1], kind == "instance", min_size, iou)
        confusion = np.zeros((_LABELS, _LABELS), np.int64)
        left_out = 0
        for box in _blocks(found):
            one, other = _read(found, box), _read(true, box)
            if not_computed is not None:
                gone = one == not_computed
                left_out += int(gone.sum())
                one, other = np.where(gone, 0, one), np.where(gone, 0, other)
                confusion[0, 0] -= int(gone.sum())
            if binary:
                one = (one != 0).astype(np.int64)
            _check_labels(one, mask)
            classes = (other != 0).astype(np.int64) if binary else other
            _check_labels(classes, truth)
            confusion += confusion_of(one, classes, _LABELS)
            if matching is not None:
                matching.add(box, one, other if kind == "instance" else classes)
    occurring = np.flatnonzero(confusion.sum(0) + confusion.sum(1)).tolist()
    named = 2 if binary else max(2, len(names))
    labels = tuple(sorted({*range(1, named), *occurring} - {0}))
    used = labels[-1] + 1
    names = (*names, *(f"class {number}" for number in range(len(names), used)))[:used]
    counts = None if matching is None else matching.counts()
    return Scores(names, labels, confusion[:used, :used], left_out, counts)


def _require_scipy() -> None:
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "matching objects needs SciPy: pip install scipy, or leave them out"
        ) from error


def _check(found: Source, true: Source, mask: str | Path, truth: str | Path) -> None:
    for source, name in ((found, mask), (true, truth)):
        facts = source.facts
        if facts.channels - (facts.alpha is not None) != 1:
            raise ImageError(
                f"a mask has one channel; {name} has {facts.channels}; give an image of labels"
            )
        if np.dtype(facts.dtype).kind not in "iub":
            raise ImageError(
                f"a mask holds whole numbers; {name} holds {facts.dtype}; give an image of labels"
            )
    sizes = [source.facts.levels[0].shape for source in (found, true)]
    if sizes[0] != sizes[1]:
        raise ImageError(
            f"mask and truth need one size; {mask} has {sizes[0][0]} x {sizes[0][1]} px and "
            f"{truth} {sizes[1][0]} x {sizes[1][1]}; score the mask with its own truth"
        )


def _said_of(mask: str | Path) -> tuple[tuple[str, ...], int | None]:
    """Return the class names and the label "not computed" of a mask of ours, or of its level 0."""
    attributes: Any = {}
    for place in (Path(mask), Path(mask).parent):
        if not attributes and is_zarr(place):
            attributes = zarr.open(place, mode="r").attrs.get(OURS, {})
    if not isinstance(attributes, dict):
        attributes = {}
    return tuple(attributes.get("classes", ("background",))), attributes.get("not_computed")


def _kind_of(found: Source, true: Source, truth: str | Path, names: tuple[str, ...]) -> TruthKind:
    """Return ``binary`` for one class beside the background, whatever its number; else classes."""
    if len(names) > 2:
        return "class"
    in_mask = len(names) - 1 or len(_labels_of(found))
    labels = _labels_of(true)
    if in_mask > 1 and len(labels) == 1:
        raise SettingError(
            f"the mask has {in_mask} labels beside 0, and {truth} one; give the mask first, then "
            "the truth, or use truth=binary to count anything but 0 as found"
        )
    if in_mask > 1:
        return "class"
    if len(labels) > 1:
        many = f"{len(labels)}" if len(labels) < _LABELS else f"{_LABELS} or more"
        raise SettingError(
            f"{truth} has {many} labels beside 0, and the mask 1; use truth=instance if they are "
            "objects, or truth=binary or truth=class"
        )
    return "binary"


def _labels_of(source: Source) -> set[int]:
    """Return the labels that occur beside 0; where there are very many, some of them."""
    labels: set[int] = set()
    for box in _blocks(source):
        labels.update(np.unique(_read(source, box)).tolist())
        if len(labels) > _LABELS:
            break
    return labels - {0}


def _check_labels(labels: NDArray[np.int64], name: str | Path) -> None:
    if labels.size and not 0 <= labels.min() <= labels.max() < _LABELS:
        raise SettingError(
            f"classes are 0 to {_LABELS - 1}; {name} has {labels.min()} to {labels.max()}; "
            "use truth=instance if the truth's labels are objects"
        )


def _blocks(source: Source) -> Iterator[Box]:
    """Return squares in rows, whole chunks of the source where its chunks are smaller."""
    level = source.facts.levels[0]
    segment = level.segment or (1, 1)
    side_y, side_x = (
        part * max(1, _BLOCK_PX // part) if part <= _MOST_PX else _BLOCK_PX for part in segment
    )
    height, width = level.shape
    for y, x in product(range(0, height, side_y), range(0, width, side_x)):
        yield Box.of(y, min(y + side_y, height), x, min(x + side_x, width))


def _read(source: Source, box: Box) -> NDArray[np.int64]:
    return source.read(0, box, (0,))[..., 0].astype(np.int64)
