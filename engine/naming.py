"""Names of images and networks, for people, JSON and the mask's folder."""

from pathlib import Path


def readable(name: str) -> str:
    r"""Return a file's name as valid text: bytes that are none become question marks.

    >>> readable("caf\udce9.tif")
    'caf?.tif'
    """
    return name.encode("utf-8", "replace").decode()


def mask_name(image: Path, model: str) -> str:
    """Return the name of an image's mask.

    >>> mask_name(Path("folder/slide.ome.tif"), "unet"), mask_name(Path("s.1.svs"), "unet")
    ('slide.unet.zarr', 's.1.unet.zarr')
    """
    stem = Path(image.stem)
    return f"{stem.stem if stem.suffix == '.ome' else stem}.{model}.zarr"
