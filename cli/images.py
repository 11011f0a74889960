"""Which images a command means: files, folders of images, and patterns such as ``'*.tif'``."""

from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from pathlib import Path
from zipfile import BadZipFile

from ..engine.exports import SUFFIXES
from ..engine.sources.slide_files import holds_dicom
from ..engine.sources.zarr_files import is_n5, is_zarr, root_in_zip
from ..engine.stitcher.store import OURS
from ..engine.url import Location, Url
from ..tiler.errors import ImageError

_ENDINGS = {
    *(".tif", ".tiff", ".tf2", ".tf8", ".btf", ".svs", ".ndpi", ".scn", ".qptiff", ".bif"),
    *(".mrxs", ".svslide", ".vms", ".vmu"),
    *(".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".bmp"),
}
"""Of image files; a ZIP is one that holds a Zarr."""

_BESIDE_MASKS = (*SUFFIXES, ".png")
"""Endings of images that were written beside a mask."""


def images_of(given: Sequence[Location]) -> tuple[list[Location], list[str]]:
    """Return the images that are meant, in order, and what to say of how they were found.

    A folder that is no image, and a pattern that names no file itself, stand for the images they
    hold, sorted by name; masks of ours and what was written beside them are none.

    Args:
        given: Images, folders and patterns; a URL is an image.

    Raises:
        ImageError: A folder or pattern holds no image.
    """
    images, notes = list[Location](), list[str]()
    for path in given:
        if isinstance(path, Url) or (found := _inside(path)) is None:
            images.append(path)
            continue
        known, masks = _images_among(found)
        if not known:
            raise ImageError(_nothing(path, len(found)))
        images += known
        left_out = f", without {masks} of masks" if masks else ""
        notes.append(f"{path}: {len(known)} {'image' if len(known) == 1 else 'images'}{left_out}")
    return images, notes


def _inside(path: Path) -> list[Path] | None:
    """Return what a folder holds or a pattern matches, sorted; ``None`` for what is neither."""
    if path.is_dir():
        is_image = is_zarr(path) or holds_dicom(path) or is_n5(path)
        return None if is_image else sorted(path.iterdir())
    if path.exists() or not has_magic(str(path)):
        return None
    return sorted(map(Path, glob(str(path), recursive=True)))  # noqa: PTH207 - absolute ones too


def _images_among(paths: Iterable[Path]) -> tuple[list[Path], int]:
    """Return the images among files and folders, and how many are left out as a mask's."""
    images, masks = list[Path](), 0
    for path in paths:
        if path.name.startswith(".") or not _is_image(path):
            continue
        if _is_mask(path) or _is_beside_mask(path):
            masks += 1
        else:
            images.append(path)
    return images, masks


def _is_image(path: Path) -> bool:
    if path.is_dir():
        return is_zarr(path) or holds_dicom(path)
    if path.suffix.lower() != ".zip":
        return path.suffix.lower() in _ENDINGS
    try:
        return root_in_zip(path) is not None
    except (BadZipFile, OSError):  # to open it will tell
        return True


def _is_mask(path: Path) -> bool:
    return (path / OURS).is_dir()


def _is_beside_mask(path: Path) -> bool:
    return any(
        path.name.lower().endswith(ending)
        and _is_mask(path.with_name(f"{path.name[: -len(ending)]}.zarr"))
        for ending in _BESIDE_MASKS
    )


def _nothing(path: Path, count: int) -> str:
    if path.is_dir():
        return (
            f"{path} is a folder without images, Zarr metadata or DICOM files; pass an image file, "
            "a folder of images, a Zarr folder or the folder of a DICOM slide"
        )
    if not count:
        return f"no file matches {path}; check the path"
    return (
        f"{path} matches {count} files, of which none is an image by its name; check the pattern, "
        "or give it without quotes"
    )
