"""Say why a network cannot be tiled exactly, and what in it that comes from."""

from ..tiler.errors import ModelError
from ..tiler.window import WINDOWS
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


def why_not_exact(network: NetworkFacts, probe: Probe, blend: str | None) -> str:
    """Return the warning about a mask that is not that of one whole pass."""
    causes = {
        "bounded": "its halo leaves no core in its tile",
        "does_not_fit": "it sees further than its tile reaches",
        "unbounded": "every pixel of a tile influences every other",
        "position_dependent": "its output depends on where in the tile a pixel lies",
    }
    blended = blend in WINDOWS
    return (
        f"{network.name} cannot be tiled exactly: {causes[probe.verdict]}"
        + through(network, probe)
        + " (two tiles disagree by "
        + f"{probe.disagreement:.2g} of the largest logit in their middle); "
        + ("overlapping tiles are blended" if blended else "there may be seams between tiles")
        + ", and the mask depends on the tile's size"
    )


def check_whole_numbers(network: NetworkFacts, probe: Probe) -> str:
    """Return a warning about an output that was thresholded already.

    Raises:
        ModelError: The output are labels.
    """
    if probe.lowest < 0 or probe.highest > 1:
        raise ModelError(
            f"{network.name} returns whole numbers from {probe.lowest:g} to {probe.highest:g}, "
            "which look like labels; let it return logits"
        )
    return (
        f"{network.name} returns zeros and ones only, so what it sees cannot be measured to the "
        "last pixel: the mask is not certified to be exact; let it return logits"
    )
