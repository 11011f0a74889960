"""Names of images and networks, for people, JSON and the mask's folder."""

import hashlib
import re
from pathlib import Path

from .url import Location

LONGEST_BYTES = 200
"""Of a mask's name. File systems take 255; a file beside the mask has a longer ending."""

_UNPRINTABLE = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ufffe\\uffff]")
"""What a terminal obeys instead of showing it: controls, new lines, turns of the direction."""

_NOT_IN_NAMES = re.compile(r"[/\\]")


def readable(name: str) -> str:
    r"""Return a file's name as valid text: bytes that are none become question marks.

    >>> readable("caf\udce9.tif")
    'caf?.tif'
    """
    return name.encode("utf-8", "replace").decode()


def printable(text: str) -> str:
    r"""Return a text without what a terminal obeys or XML forbids, question marks in its place.

    >>> printable("tissue\x1b[2J\nerror: none")
    'tissue?[2J?error: none'
    """
    return _UNPRINTABLE.sub("?", text)


def mask_name(image: Location, model: str) -> str:
    """Return the name of an image's mask: one part of a path, whatever the model is called.

    What is too long is cut, and told apart by a hash.

    >>> mask_name(Path("folder/slide.ome.tif"), "unet"), mask_name(Path("s.1.svs"), "unet")
    ('slide.unet.zarr', 's.1.unet.zarr')
    >>> mask_name(Path("slide.tif"), "../unet")
    'slide..._unet.zarr'
    """
    stem = Path(image.stem)
    name = f"{stem.stem if stem.suffix == '.ome' else stem}.{model}"
    name = _NOT_IN_NAMES.sub("_", _UNPRINTABLE.sub("_", name))
    if _bytes_of(name) > LONGEST_BYTES:
        mark = f"~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
        name = name[:LONGEST_BYTES]
        while _bytes_of(name + mark) > LONGEST_BYTES:
            name = name[:-1]
        name += mark
    return f"{name}.zarr"


def _bytes_of(name: str) -> int:
    return len(name.encode("utf-8", "surrogatepass"))
