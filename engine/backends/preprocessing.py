"""What a description does to raw pixels before the network sees them."""

from dataclasses import dataclass
from typing import Literal

Statistic = Literal["none", "zscore", "percentile"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """``clip(gain * (raw - low) / (spread + eps) + shift)``, in units of the raw pixels.

    ``low`` and ``spread`` are a statistic of the whole image: mean and deviation, or a percentile
    and the distance to another; 0 and 1 without a statistic.
    """

    statistic: Statistic = "none"
    """Which statistic."""
    percentiles: tuple[float, float] = (0.0, 100.0)
    """Percentiles that become 0 and 1, in percent."""
    joint: bool = False
    """Whether all channels share one statistic."""
    eps: float = 0.0
    """Added to the deviation, or to the distance of the percentiles, in raw units."""
    gain: tuple[float, ...] = (1.0,)
    """Multiplied after that: one number for all channels, or one for each."""
    shift: tuple[float, ...] = (0.0,)
    """Added after that: one number for all channels, or one for each."""
    clip: tuple[float | None, float | None] = (None, None)
    """Smallest and largest number that the network is given."""
    dtype: str | None = None
    """Integer type that the raw pixels are to have: they are not converted."""
    unsupported: str | None = None
    """A step that cannot be followed; the rest means nothing then."""

    @property
    def setting(self) -> str | None:
        """The option that does the same but for ``eps``; ``None`` where there is none."""
        if (
            self.unsupported
            or self.joint
            or set(self.gain) != {1.0}
            or any(self.shift)
            or self.clip != (None, None)
        ):
            return None
        if self.statistic == "percentile" and self.percentiles != (1.0, 99.8):
            return None
        return self.statistic
