"""Files that a command writes besides its masks: one by name, or one beside each mask."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine.naming import mask_name
from ..engine.url import Location, Url
from ..tiler.errors import SettingError
from .outputs import resolved


@dataclass(frozen=True, slots=True)
class Companion:
    """One of those files, as it was asked for."""

    option: str
    """Option that asks for it, such as ``--also``."""
    given: Path
    """A file, or an ending: ``.png`` and ``png`` are a picture beside each mask."""
    suffix: str
    """Ending that says the format, with its dot."""

    beside_mask: bool
    """Whether only an ending was given."""

    def path(self, mask: Location) -> Path:
        """Return where it goes.

        Raises:
            SettingError: That would be beside a mask at a URL, where only masks are written.

        >>> companion("--also", Path("ome.tif"), [".ome.tif"]).path(Path("a.1.unet.zarr")).name
        'a.1.unet.ome.tif'
        """
        if not self.beside_mask:
            return self.given
        if isinstance(mask, Url):
            raise SettingError(
                f"{self.option} {self.given} would be beside {mask}; name a file for it, and give "
                "such masks one by one"
            )
        folder = mask if mask.name else mask.resolve()
        return folder.parent / (folder.name.removesuffix(".zarr") + self.suffix)


def companion(option: str, given: Path, suffixes: Sequence[str]) -> Companion:
    """Return what was asked for.

    Args:
        option: The option.
        given: Its value.
        suffixes: Endings there are; the longer of two that match comes first.

    Raises:
        SettingError: It has none of them.
    """
    text = str(given).lower()
    for suffix in suffixes:
        beside_mask = text in (suffix, suffix[1:])
        if beside_mask or text.endswith(suffix):
            return Companion(option, given, suffix, beside_mask)
    raise SettingError(
        f"{option} {given} has an ending that is not known; use {' or '.join(suffixes)}"
    )


def check_companions(
    companions: Iterable[Companion],
    images: Sequence[Location],
    model: Path,
    name: str,
    paths: Sequence[Location | None],
) -> None:
    """Refuse a file that could not be written in the end, before hours of work.

    Args:
        companions: What was asked for.
        images: The images.
        model: File of the network.
        name: Name of the network.
        paths: Where the mask of each goes; ``None`` is beside the image.

    Raises:
        SettingError: One file is for several images, would overwrite an image, is a folder, or lies
            in a folder that does not exist or in the mask.
    """
    inputs = {resolved(path): path for path in (*images, model)}
    for each in companions:
        if not each.beside_mask and len(images) > 1:
            raise SettingError(
                f"{each.option} {each.given} is one file for {len(images)} images; "
                f"use {each.option} {each.suffix} for one beside each mask"
            )
        for image, mask in zip(images, paths, strict=True):
            mask = mask or image.with_name(mask_name(image, name))
            path = each.path(mask)
            if path.resolve() in inputs:
                raise SettingError(
                    f"{each.option} {each.given} would overwrite {inputs[path.resolve()]}; "
                    "choose another name"
                )
            if isinstance(mask, Path) and mask.resolve() in path.resolve().parents:
                raise SettingError(
                    f"{each.option} {path} lies inside the mask; choose another place"
                )
            if path.is_dir():
                raise SettingError(f"{each.option}: {path} is a folder; choose another place")
            if not each.beside_mask and not path.parent.is_dir():
                raise SettingError(
                    f"{each.option} {path} lies in {path.parent}, which does not exist; "
                    "choose another place"
                )
