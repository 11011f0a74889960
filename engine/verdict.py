"""Name the parts of a network that its verdict comes from."""

from .backends.base import NetworkFacts
from .probe import Probe


def through(network: NetworkFacts, probe: Probe) -> str:
    """Return ``, through this and that`` for a network that is not bounded; else nothing."""
    if probe.bounded or not network.tile_dependent:
        return ""
    return f", through {', '.join(network.tile_dependent)}"


def without_effect(network: NetworkFacts, probe: Probe) -> list[str]:
    """Return a note on such parts of a network that was measured to be bounded all the same.

    One that is switched off by a weight of zero, say, is no reason to blend; but noise is no image,
    so it is said.
    """
    if not probe.bounded or not network.tile_dependent:
        return []
    parts = ", ".join(network.tile_dependent)
    return [f"{parts}: depends on the tile's size, but had no effect on the logits of noise"]
