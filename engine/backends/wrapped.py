"""A network that does as another one, but for what a class derived from it says."""

import numpy as np
from numpy.typing import NDArray

from .base import Execution, Form, Layer, Network, NetworkFacts, Recipe, Runner


class WrappedNetwork:
    """Hands everything on to the network that it was given; to close it is to close that one."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @property
    def facts(self) -> NetworkFacts:
        """Facts about the network."""
        return self._network.facts

    def takes(self, channels: int) -> bool:
        """Say whether the network can be given so many channels."""
        return self._network.takes(channels)

    def logits(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run normalised tiles ``(batch, channel, y, x)``; return ``(batch, class, y, x)``."""
        return self._network.logits(tiles)

    def layers(self, channels: int, tile: tuple[int, int]) -> tuple[Layer, ...]:
        """Return the work of one run over a tile, layer by layer."""
        return self._network.layers(channels, tile)

    def form(self, recipe: Recipe, wanted: Execution) -> tuple[Form, str]:
        """Return the quickest form that it can be run in, and why it is not the one wanted."""
        return self._network.form(recipe, wanted)

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        """Return a runner."""
        return self._network.prepare(recipe, execution)

    def close(self) -> None:
        """Leave everything as it was found."""
        self._network.close()
