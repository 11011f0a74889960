"""How a run behaves where something is wrong; no pixel that is computed depends on it."""

from dataclasses import dataclass
from typing import Literal

from ..tiler.errors import SettingError

VERIFIED = 0.001
"""Share of the mask that is computed again unless another is asked for; one tile at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """What may differ from one start of a run to the next."""

    overwrite: bool = False
    """Start again where another mask is."""
    break_lock: bool = False
    """Take over an output that a process of another machine holds."""
    on_read_error: Literal["stop", "fill"] = "stop"
    """What becomes of pixels that cannot be decoded: the run stops, or they are labelled as not
    computed and listed in the report."""
    on_nan: Literal["stop", "report"] = "stop"
    """What becomes of pixels for which the network gives NaN or infinity: the run stops, or they
    are labelled as not computed and counted in the report."""
    verify: float | None = None
    """Share of the mask that is computed again in other tiles, and compared; 0 for none. By default
    a thousandth, and one tile at least."""

    def __post_init__(self) -> None:
        for name, choices in (("on_read_error", ("stop", "fill")), ("on_nan", ("stop", "report"))):
            if getattr(self, name) not in choices:
                raise SettingError(
                    f"{name}={getattr(self, name)!r} is unknown; use {' or '.join(choices)}"
                )
        if self.verify is not None and not 0 <= self.verify <= 1:
            raise SettingError(f"verify={self.verify} is not a share; use 0 to 1")
