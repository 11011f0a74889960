"""What an exception means to the user: one line and an exit code."""

import re
from typing import NamedTuple

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError

from ..tiler.errors import SettingError, TileInferError
from .wording import as_options

FAILED, WRONG_USAGE = 1, 2

_TAKES = {
    "tile-infer plan": "one image",
    "tile-infer finish": "one mask",
    "tile-infer inspect": "one model",
    "tile-infer bench": "options alone",
    "tile-infer export": "one network",
    "tile-infer demo": "one folder",
    "tile-infer train": "one folder or pattern of images and one of labels",
    "tile-infer score": "one mask and one truth",
}
_REQUIRES = re.compile(r"^.*?parameter (\S+) requires an argument", re.IGNORECASE)


class Failure(NamedTuple):
    """How a command ended."""

    text: str
    exit_code: int
    internal: bool = False
    """Whether this is a mistake in the program."""


def explain(error: Exception | SystemExit) -> Failure:
    """Return what to tell the user about an exception."""
    match error:
        case MissingArgumentError():
            text = _REQUIRES.sub(r"\1 is missing", _one_line(error))
            return Failure(f"{text} See {_program(error)} --help.", WRONG_USAGE)
        case UnusedCliTokensError(unused_tokens=[*tokens]):
            program = _program(error)
            one = _TAKES.get(program, "less")
            text = f"{program} takes {one}, so {', '.join(tokens)} cannot follow; run it for each."
            return Failure(f"{text} See {program} --help.", WRONG_USAGE)
        case CycloptsError():
            return Failure(f"{_one_line(error)} See {_program(error)} --help.", WRONG_USAGE)
        case SettingError():
            return Failure(as_options(str(error)), WRONG_USAGE)
        case TileInferError():
            return Failure(as_options(str(error)), FAILED)
        case MemoryError():
            return Failure("not enough memory; lower --memory, --workers or --tile", FAILED)
        case OSError(strerror=str(cause), filename=str(name)):
            return Failure(f"{name}: {cause}", FAILED)
        case OSError(strerror=str(cause)):
            return Failure(cause, FAILED)
        case _:
            text = f"{type(error).__name__}: {error}".rstrip(": ")
            return Failure(
                f"internal error: {text} (run again with --verbose to see where)", FAILED, True
            )


def _program(error: CycloptsError) -> str:
    return " ".join(["tile-infer", *(error.command_chain or ())])


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?")) else f"{text}."
