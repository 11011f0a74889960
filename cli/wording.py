"""The engine's messages in the words of the command line."""

import re
from dataclasses import fields

from ..engine.conduct import Conduct
from ..engine.settings import Settings
from ..engine.training.settings import TrainingSettings

_NAMES = "|".join(
    [
        *(field.name for kind in (Settings, Conduct) for field in fields(kind)),
        "dask",
        "out",
        "part",
        "prune",
        "width",
    ]
)
_IF_ASSIGNED = "|".join(
    [
        *(field.name for field in fields(TrainingSettings)),
        *("network", "validation", "label_kind", "min_size", "iou", "truth", "image", "model"),
    ]
)
_ASSIGNED = re.compile(rf"(?<![\w./-])({_NAMES}|{_IF_ASSIGNED})=(?:(True\b)|(?=\S))")
_MENTIONED = re.compile(rf"\b((?:use|with|give|choose|say|leave) )({_NAMES})\b(?![=./-])")
_PAIRED = re.compile(
    rf"\b({_NAMES})( and |/)({_NAMES})\b(?= (?:go together|contradict))"
    rf"|\b({_NAMES})( needs )({_NAMES})\b(?=:)"
)


def as_options(text: str) -> str:
    """Return a message with its settings spelt as options.

    >>> as_options("batch_size=0 is not possible; use 1 or more")
    '--batch-size 0 is not possible; use 1 or more'
    >>> as_options("/data is a file; choose another place with out")
    '/data is a file; choose another place with --out'
    >>> as_options("if that has ended, give break_lock=True")
    'if that has ended, give --break-lock'
    """
    text = _PAIRED.sub(_pair, text)
    text = _ASSIGNED.sub(lambda found: _option(found[1]) + ("" if found[2] else " "), text)
    return _MENTIONED.sub(lambda found: f"{found[1]}{_option(found[2])}", text)


def _pair(found: re.Match[str]) -> str:
    one, between, other = (part for part in found.groups() if part is not None)
    return f"{_option(one)}{between}{_option(other)}"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
