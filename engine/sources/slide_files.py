"""Which files make up a slide."""

from collections.abc import Mapping
from pathlib import Path

from ...tiler.errors import ImageError

_DICOM_AT = 128
_DICOM = b"DICM"
_SERIES_WITHIN_BYTES = 64 * 1024
"""The series is named long before the pixels."""
_INDEX_SUFFIXES = (".vms", ".vmu")


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as file:
            file.seek(_DICOM_AT)
            return file.read(len(_DICOM)) == _DICOM
    except OSError:  # a folder, or nothing that may be read
        return False


def holds_dicom(folder: Path) -> bool:
    """Say whether a folder holds DICOM files."""
    return any(is_dicom(path) for path in folder.iterdir())


def first_dicom(folder: Path) -> Path:
    """Return the first DICOM file of a folder, in order of names."""
    for path in sorted(folder.iterdir()):
        if is_dicom(path):
            return path
    raise ImageError(f"{folder} holds no DICOM files; pass the file of a slide")


def slide_files(path: Path, properties: Mapping[str, str]) -> list[Path]:
    """Return all files of a slide, ``path`` among them, in order of names.

    Args:
        path: The file it was opened by.
        properties: What OpenSlide says about it.
    """
    series = properties.get("dicom.SeriesInstanceUID")
    if series:
        return [p for p in sorted(path.parent.iterdir()) if is_dicom(p) and _names(p, series)]
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        beside = path.with_suffix("")
        parts = sorted(p for p in beside.rglob("*") if p.is_file()) if beside.is_dir() else []
        return [path, *parts]
    if suffix in _INDEX_SUFFIXES:
        index = path.read_bytes()
        siblings = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p != path]
        return [path, *(p for p in siblings if p.name.encode() in index)]
    return [path]


def _names(path: Path, series: str) -> bool:
    """Say whether a DICOM file belongs to a series, whose UID ends at a 0 byte, blank or tag."""
    with path.open("rb") as file:
        head = file.read(_SERIES_WITHIN_BYTES)
    uid = series.encode()
    at = head.find(uid)
    while at >= 0:
        after = head[at + len(uid) : at + len(uid) + 1]
        if not after.isdigit() and after != b".":
            return True
        at = head.find(uid, at + 1)
    return False
