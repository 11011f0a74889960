"""A file that appears under its name only when it is whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ...tiler.errors import OutputError, TileInferError, first_line


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that takes its name at the end; on any failure it is deleted.

    Raises:
        OutputError: The file cannot be written.
    """
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        try:
            with partial.open("xb") as file:
                yield file
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except TileInferError:
        raise
    except OSError as error:
        cause = error.strerror or first_line(error)
        raise OutputError(f"{path} cannot be written: {cause}; choose another place") from error
