"""Measure a network as the settings say."""

import numpy as np
from numpy.typing import NDArray

from ..tiler.errors import SettingError
from .backends import Network
from .probe import Probe, probe
from .settings import Settings


def inspect(
    network: Network, settings: Settings, channels: int | None = None, largest: float = 1.0
) -> Probe:
    """Measure a network's geometry.

    Args:
        network: The network.
        settings: Their ``tolerance``, ``halo`` and ``tile`` count.
        channels: Input channels, for a network that does not say or takes several numbers.
        largest: Largest number that it will be given, whatever its sign.

    Raises:
        ModelError: It is not a network from an image to a map.
        SettingError: It does not take so many channels.
    """
    facts, rim = network.facts, settings.halo or 0

    def logits(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        found = network.logits(tiles)
        if not rim or found.ndim != 4:
            return found
        # A network may leave anything in a halo that the user states.
        inside = np.where(np.isfinite(found), found, 0)
        inside[:, :, rim:-rim, rim:-rim] = found[:, :, rim:-rim, rim:-rim]
        return inside

    if channels and facts.channels not in (None, channels) and not network.takes(channels):
        raise SettingError(
            f"channels={channels} is not possible: {facts.name} takes {facts.channels}; leave it "
            "out"
        )
    return probe(
        logits,
        channels or facts.channels or 1,
        facts.fixed,
        tolerance=settings.tolerance,
        tile=settings.tile,
        largest=largest,
    )
