"""Errors that name the rule, the value got and the mend."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TileInferError(Exception):
    """Base of every error this package raises on purpose; its text is one line for the user."""


class SettingError(TileInferError, ValueError):
    """An option, or a combination of options, that cannot work."""


class ImageError(TileInferError, OSError):
    """An image that cannot be opened, read or understood."""


class ModelError(TileInferError, ValueError):
    """A network that cannot be loaded, or that does not map an image to a map."""


class OutOfMemoryError(ModelError, MemoryError):
    """A network that needs more memory for a tile than its device has, or a block than there is."""


class OutputError(TileInferError, OSError):
    """An output that cannot be written, or that belongs to another run."""


class DeviceError(TileInferError, RuntimeError):
    """A device, precision or backend that was asked for and cannot be had."""


class NumericError(TileInferError, ArithmeticError):
    """A network that returned NaN or infinity where the mask needs a number."""


class MissingExtraError(TileInferError, ImportError):
    """An optional library that is not installed; the text says how to install it."""


class TileInferWarning(UserWarning):
    """Something the user should know, though the run goes on."""


def first_line(error: BaseException) -> str:
    r"""Return the first line of what another library said, or the kind of its error.

    >>> first_line(ValueError("no\nmore")), first_line(KeyError())
    ('no', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def cause_of(error: BaseException) -> str:
    """Return what went wrong in a few words: the system's, where it is the system that failed.

    >>> cause_of(OSError(5, "Input/output error")), cause_of(MemoryError())
    ('Input/output error', 'not enough memory')
    """
    if isinstance(error, MemoryError) and not str(error):
        return "not enough memory"
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error)


@contextmanager
def failing_as(kind: type[TileInferError], stage: str, file: str, part: str = "") -> Iterator[None]:
    """Let whatever fails inside be told in one line that names stage, file and part of the work.

    Errors of ours name their file already. What would only end a thread, such as ``SystemExit``,
    fails the run as well; in the main thread, where signals arrive, it goes on as it is.

    Args:
        kind: What to raise for other errors.
        stage: What is being done, such as ``"writing"``.
        file: To what.
        part: To which part of it, such as ``"block 3"``.

    Raises:
        TileInferError: Something failed.
    """
    try:
        yield
    except TileInferError as error:
        if not part:
            raise
        raise type(error)(f"{error} ({stage} {part})") from error
    except BaseException as error:
        signalled = threading.current_thread() is threading.main_thread()
        if signalled and not isinstance(error, Exception):
            raise
        where = f"{file}, {part}" if part else file
        raise kind(f"{stage} {where}: {cause_of(error)}") from error
