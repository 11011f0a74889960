"""Where the masks of one command go."""

from pathlib import Path

from ..engine.naming import mask_name
from ..tiler.errors import OutputError, SettingError

_FILES = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".json", ".geojson", ".npy"}
"""Suffixes that nobody means a folder by."""


def mask_paths(images: tuple[Path, ...], model: str, out: Path | None) -> list[Path | None]:
    """Return the folder of each image's mask; ``None`` leaves it to the engine.

    Args:
        images: One or more.
        model: Name of the network.
        out: For one image the mask, for several the folder that the masks go into.

    Raises:
        SettingError: Two images would share a mask, or ``out`` is no folder for several.
        OutputError: ``out`` cannot be made.
    """
    if out is not None and out.suffix.lower() in _FILES and not out.is_dir():
        raise SettingError(
            f"out={out} would be a folder of Zarr; name it {out.with_suffix('.zarr').name}, "
            "or use --preview FILE.png for a picture"
        )
    if len(images) == 1:
        return [out]
    names = [mask_name(image, model) for image in images]
    paths = [(out or image.parent) / name for image, name in zip(images, names, strict=True)]
    seen: dict[Path, Path] = {}
    for image, path in zip(images, paths, strict=True):
        other = seen.setdefault(path.resolve(), image)
        if other is not image:
            raise SettingError(
                f"{other} and {image} would both go to {path}; run them one by one, each with out"
            )
    if out is not None:
        _make_folder(out)
    return [*paths]


def _make_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SettingError(f"out={out} is a file; for several images it is a folder of masks")
    if (out / "zarr.json").exists():
        raise SettingError(f"out={out} is a mask; for several images it is a folder of masks")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{out} cannot be created ({error.strerror}); choose another place with out"
        ) from error
