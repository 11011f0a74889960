"""Read single files from a zip archive of somebody else's, within bounds."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from ...tiler.errors import ModelError, TileInferError, first_line
from ..memory import human

LARGEST_TEXT_BYTES = 1 << 20
"""Of a description; those there are have some 10 kB."""

SMALL_BYTES = 256 << 20
"""What may be as regular as it likes."""

LARGEST_RATIO = 100
"""Of what is larger: weights in floating point hardly become smaller."""


@contextmanager
def opened(path: Path) -> Iterator[ZipFile]:
    """Open an archive; whatever goes wrong while it is read is told in one line.

    Raises:
        ModelError: It cannot be read, or holds names that lead out of it.
    """
    try:
        with ZipFile(path) as archive:
            for name in archive.namelist():
                _check_name(name, path)
            yield archive
    except TileInferError:
        raise
    except OSError as error:
        raise ModelError(
            f"model {path} cannot be read ({error.strerror or first_line(error)}); check the path"
        ) from error
    except Exception as error:  # a password, damage, and each compression's own type
        raise ModelError(
            f"model {path} is not a readable package: {first_line(error)}; get it anew"
        ) from error


def read_text(archive: ZipFile, member: str, path: Path) -> bytes:
    """Return a description.

    Raises:
        ModelError: It is too large for one.
    """
    size = archive.getinfo(member).file_size
    if size > LARGEST_TEXT_BYTES:
        raise ModelError(
            f"model {path} holds a description of {human(size)}, above "
            f"{human(LARGEST_TEXT_BYTES)}; get it anew"
        )
    _check_packing(archive, member, path)
    return archive.read(member)


def unpack(archive: ZipFile, member: str, target: Path, path: Path) -> None:
    """Write one file of the archive.

    No more than the archive states is written, so what it states is checked.

    Raises:
        ModelError: It would become a hundred times as large as it is, or than the disk has room.
    """
    _check_packing(archive, member, path)
    info = archive.getinfo(member)
    packed = min(info.compress_size, path.stat().st_size)
    if info.file_size > max(SMALL_BYTES, LARGEST_RATIO * packed):
        raise ModelError(
            f"model {path} holds {human(info.file_size)} in {human(packed)}, which no weights "
            "are; get it anew"
        )
    free = shutil.disk_usage(target.parent).free
    if info.file_size > free:
        raise ModelError(
            f"model {path} unpacks to {human(info.file_size)}, and {target.parent} has "
            f"{human(free)} free; make room, or unpack it and give the description"
        )
    with archive.open(member) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def _check_name(name: str, path: Path) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or ".." in PurePosixPath(plain).parts:
        raise ModelError(
            f"model {path} holds a file named {name!r:.200}, which leads out of the package; get "
            "it from a place that you trust"
        )


def _check_packing(archive: ZipFile, member: str, path: Path) -> None:
    """Refuse what Python's library unpacks by whole blocks, however large they become."""
    if archive.getinfo(member).compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ModelError(
            f"model {path} is packed by another method than Deflate; pack it again as usual"
        )
