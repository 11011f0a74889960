"""Errors that name the rule, the value got and the mend."""


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
