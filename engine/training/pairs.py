"""Which label image belongs to which image."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...tiler.errors import ImageError
from ..sources.zarr_files import is_zarr

_GLOB = re.compile(r"[*?\[]")


class Pair(NamedTuple):
    """An image and its labels."""

    image: Path
    labels: Path


def pairs_of(images: str, labels: str) -> tuple[list[Pair], str]:
    """Return the pairs in natural order, and how they were found.

    Files of the same name, but for its ending, belong together; where no two names are alike, the
    first belongs to the first, in natural order.

    Args:
        images: A folder, a file or a glob pattern.
        labels: The same for the label images.

    Raises:
        ImageError: There are none, or they do not pair off.
    """
    found, true = files_of(images, "images"), files_of(labels, "labels")
    for name_of in (_stem, _first_part):
        names, of_labels = ({name_of(path): path for path in paths} for paths in (found, true))
        if not names.keys() & of_labels.keys():
            continue
        unique = len(names) == len(found) and len(of_labels) == len(true)
        without = {
            "labels": [path for path in found if name_of(path) not in of_labels],
            "image": [path for path in true if name_of(path) not in names],
        }
        for partner, lonely in without.items():
            if lonely and (unique or name_of is _stem):
                raise ImageError(
                    f"every image needs labels of its name; no {partner} for "
                    f"{_some(lonely)}; add {partner} or move away what does not belong there"
                )
        if not unique:
            continue
        return [Pair(names[name], of_labels[name]) for name in names], "paired by name"
    if len(found) != len(true):
        raise ImageError(
            f"{images} has {len(found)} images and {labels} {len(true)} label images, of other "
            "names; give both the same names"
        )
    pairs = [Pair(*both) for both in zip(found, true, strict=True)]
    if len(pairs) == 1:
        return pairs, "one pair"
    first = pairs[0]
    return pairs, f"paired in order of names, {first.image.name} with {first.labels.name} first"


def _some(paths: Sequence[Path]) -> str:
    """Return the first three paths, and how many more there are."""
    more = len(paths) - 3
    return ", ".join(map(str, paths[:3])) + (f" and {more} more" if more > 0 else "")


def files_of(where: str, what: str) -> list[Path]:
    """Return the files of a folder, of a glob pattern, or the one file, in natural order.

    Args:
        where: The folder, pattern or file.
        what: What they are, for errors.

    Raises:
        ImageError: There are none.
    """
    path = Path(where)
    if path.is_dir() and not is_zarr(path):
        found = list(path.iterdir())
    elif path.exists():
        found = [path]
    elif _GLOB.search(where):
        found = [Path(name) for name in glob.glob(where, recursive=True)]  # noqa: PTH207 - absolute
    else:
        raise ImageError(f"{where} does not exist; give a folder or a pattern such as '{what}/*'")
    found = [each for each in found if not each.name.startswith(".") and _is_image(each)]
    if not found:
        raise ImageError(f"{what}: {where} holds no file; give a folder with {what}")
    return sorted(found, key=lambda each: _natural(str(each)))


def _is_image(path: Path) -> bool:
    return path.is_file() or is_zarr(path)


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")


def _first_part(path: Path) -> str:
    """Return ``cell`` of ``cell.labels.png``."""
    return path.name.split(".")[0]


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts ``2.png`` before ``10.png``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
