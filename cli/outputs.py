"""Where the masks of one command go."""

from pathlib import Path

from ..engine.naming import mask_name
from ..engine.stitcher.store import OURS, open_store
from ..tiler.errors import OutputError, SettingError

_FILES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".json", ".geojson", ".npy"}
"""Suffixes that nobody means a folder by."""


def into_folder(images: tuple[Path, ...], out: str | None) -> bool:
    """Say whether ``out`` is the folder that masks go into, not the mask of one image.

    A slash at the end says so; but shells complete the name of a mask with a slash as well.
    """
    if out is None or len(images) > 1:
        return out is not None
    return out.endswith(("/", "\\")) and Path(out).suffix != ".zarr" and not _is_mask(Path(out))


def mask_paths(images: tuple[Path, ...], model: str, out: str | None) -> list[Path | None]:
    """Return the folder of each image's mask; ``None`` leaves it to the engine.

    Nothing is made yet: a command that is refused leaves nothing behind.

    Args:
        images: One or more.
        model: Name of the network.
        out: For one image the mask, for several the folder that the masks go into.

    Raises:
        SettingError: Two images would share a mask, or ``out`` is no folder for several.
        OutputError: ``out`` cannot be made, or holds other things than a mask.
    """
    folder = None if out is None else Path(out)
    if folder is not None and folder.suffix.lower() in _FILES and not folder.is_dir():
        raise SettingError(
            f"out={out} would be a folder of Zarr; name it {folder.with_suffix('.zarr').name}, "
            "or use --preview FILE.png for a picture"
        )
    names = [mask_name(image, model) for image in images]
    if len(images) == 1 and not into_folder(images, out):
        if folder is not None:
            _check_mask(folder, names[0])
        return [folder]
    paths = [(folder or image.parent) / name for image, name in zip(images, names, strict=True)]
    seen: dict[Path, Path] = {}
    for image, path in zip(images, paths, strict=True):
        other = seen.setdefault(path.resolve(), image)
        if other is image:
            continue
        if other.resolve() == image.resolve():
            raise SettingError(f"{image} is given twice; leave one out")
        raise SettingError(
            f"{other} and {image} would both go to {path}; run them one by one, each with out"
        )
    if folder is not None:
        _check_folder(folder)
    return [*paths]


def _is_mask(folder: Path) -> bool:
    return (folder / "zarr.json").exists() or (folder / OURS).exists()


def _check_mask(out: Path, name: str) -> None:
    if out.is_dir() and not _is_mask(out) and any(out.iterdir()):
        raise OutputError(
            f"{out} holds other things than a mask; name a mask inside it: out={out / name}"
        )


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SettingError(f"out={out} is a file; for several images it is a folder of masks")
    if (out / "zarr.json").exists():
        raise SettingError(f"out={out} is a mask; for several images it is a folder of masks")
    open_store(out)  # says whether it could be written
