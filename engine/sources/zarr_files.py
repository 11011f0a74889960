"""Which folders and ZIP files are Zarr, and which only look like it."""

import json
import zipfile
from pathlib import Path, PurePosixPath

from zarr.core.sync import sync

from ..url import Url
from ..url_store import UrlStore

MARKERS = ("zarr.json", ".zarray", ".zgroup")
"""One of these lies in every Zarr array and group."""

_ZIP = b"PK"
_N5_KEYS = ({"n5"}, {"dimensions", "dataType", "blockSize"})


def is_zarr(path: Path) -> bool:
    """Say whether a folder holds a Zarr array or group."""
    return any((path / marker).is_file() for marker in MARKERS)


def is_remote_zarr(url: Url) -> bool:
    """Say whether a Zarr array or group lies at a URL.

    Raises:
        RequestError: It cannot be told.
    """
    store = UrlStore(url, read_only=True)
    return any(sync(store.exists(marker)) for marker in MARKERS)


def is_zipped_zarr(path: Path, head: bytes) -> bool:
    """Say whether a file is a ZIP of a Zarr array or group, or a ZIP that is broken."""
    if not head.startswith(_ZIP):
        return False
    try:
        return root_in_zip(path) is not None
    except zipfile.BadZipFile:
        return True


def root_in_zip(path: Path) -> str | None:
    """Return the folder inside a ZIP that is the Zarr: its root ``""``, or the only folder there.

    Raises:
        zipfile.BadZipFile: It is broken.
    """
    with zipfile.ZipFile(path) as file:
        names = [PurePosixPath(name).parts for name in file.namelist()]
    if any(len(parts) == 1 and parts[0] in MARKERS for parts in names):
        return ""
    folders = {parts[0] for parts in names if len(parts) == 2 and parts[1] in MARKERS}
    return folders.pop() if len(folders) == 1 else None


def is_n5(path: Path) -> bool:
    """Say whether a folder holds an N5 container or dataset."""
    try:
        attributes = json.loads((path / "attributes.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(attributes, dict) and any(keys <= attributes.keys() for keys in _N5_KEYS)
