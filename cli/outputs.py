"""Where the masks of one command go."""

from collections.abc import Sequence
from pathlib import Path

from ..engine.naming import mask_name
from ..engine.stitcher.store import OURS, open_store
from ..engine.url import Location, Url, located
from ..tiler.errors import OutputError, SettingError

_FILES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".json", ".geojson", ".npy"}
"""Suffixes that nobody means a folder by."""


def into_folder(several: bool, out: str | None) -> bool:
    """Say whether ``out`` is the folder that masks go into, not the mask of one image.

    For several images it is, be they those of a folder that holds one. For one image, a slash at
    the end says so; but shells complete the name of a mask with a slash as well.
    """
    if out is None or several:
        return out is not None
    place = located(out)
    if not out.endswith(("/", "\\")) or place.suffix == ".zarr":
        return False
    return isinstance(place, Url) or not _is_mask(place)


def mask_paths(
    images: Sequence[Location], model: str, out: str | None, *, several: bool
) -> list[Location | None]:
    """Return the place of each image's mask; ``None`` leaves it to the engine.

    Nothing is made yet: a command that is refused leaves nothing behind.

    Args:
        images: One or more.
        model: Name of the network.
        out: For one image the mask, for several the folder that the masks go into.
        several: Whether there may be more than one.

    Raises:
        SettingError: Two images would share a mask, or ``out`` is no folder for several.
        OutputError: ``out`` cannot be made, or holds other things than a mask.
    """
    folder = None if out is None else located(out)
    if folder is not None and folder.suffix.lower() in _FILES and not _is_folder(folder):
        raise SettingError(
            f"out={folder} would be a folder of Zarr; name it {folder.stem}.zarr, "
            "or use --preview FILE.png for a picture"
        )
    names = [mask_name(image, model) for image in images]
    if not several and not into_folder(several, out):
        if isinstance(folder, Path):
            _check_mask(folder, names[0])
        return [folder]
    paths = [(folder or image.parent) / name for image, name in zip(images, names, strict=True)]
    seen: dict[Location, Location] = {}
    for image, path in zip(images, paths, strict=True):
        other = seen.setdefault(resolved(path), image)
        if other is image:
            continue
        if resolved(other) == resolved(image):
            raise SettingError(f"{image} is given twice; leave one out")
        raise SettingError(
            f"{other} and {image} would both go to {path}; run them one by one, each with out"
        )
    if folder is not None:
        _check_folder(folder)
    return [*paths]


def resolved(place: Location) -> Location:
    """Return a place by which it is told whether another is the same."""
    return place.resolve() if isinstance(place, Path) else place


def _is_folder(place: Location) -> bool:
    return isinstance(place, Path) and place.is_dir()


def _is_mask(folder: Path) -> bool:
    return (folder / "zarr.json").exists() or (folder / OURS).exists()


def _check_mask(out: Path, name: str) -> None:
    if out.is_dir() and not _is_mask(out) and any(out.iterdir()):
        raise OutputError(
            f"{out} holds other things than a mask; name a mask inside it: out={out / name}"
        )


def _check_folder(out: Location) -> None:
    if isinstance(out, Url):
        open_store(out)
        return
    if out.exists() and not out.is_dir():
        raise SettingError(f"out={out} is a file; for several images it is a folder of masks")
    if (out / "zarr.json").exists():
        raise SettingError(f"out={out} is a mask; for several images it is a folder of masks")
    open_store(out)  # says whether it could be written
