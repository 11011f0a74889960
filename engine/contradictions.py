"""Hold what a description says of tiles against what was measured."""

from math import floor

from ..tiler.errors import ModelError
from ..tiler.geometry import AxisGeometry
from .backends.base import NetworkFacts
from .backends.declared import DeclaredAxis
from .probe import Probe


def check_declared(facts: NetworkFacts, probe: Probe, *, sizes: bool = True) -> list[str]:
    """Return notes on where the measured is used instead of what a description says.

    A halo is a matter of taste: its author may have cropped more than was needed, or put up with a
    small error. Sizes of tiles and outputs, and classes, are either true or not.

    Args:
        facts: The network, with what is said of it.
        probe: What was measured.
        sizes: Whether tile sizes count; not where the user has chosen one.

    Raises:
        ModelError: They contradict each other.
    """
    if facts.declared is None:
        return []
    who, said = dict(facts.origins).get("declared", "the description"), facts.declared
    if said.classes not in (None, probe.classes):
        raise ModelError(
            f"{who} says {said.classes} output channels, measured were {probe.classes}; "
            "correct the description"
        )
    smaller: dict[str, list[str]] = {}
    for name, declared, measured in (
        ("y", said.y, probe.geometry.y),
        ("x", said.x, probe.geometry.x),
    ):
        if sizes:
            _check_size(who, name, declared, measured)
        if declared.scale is not None and declared.offset is not None:
            tile = declared.size or measured.size
            output = floor(tile * declared.scale + declared.offset)
            if output != measured.output(tile):
                raise ModelError(
                    f"{who} says that {tile} px give {output} px along {name}, measured were "
                    f"{measured.output(tile)}; correct the description"
                )
        halo = max(measured.halo_before, measured.halo_after)
        if probe.bounded and declared.halo is not None and declared.halo < halo:
            text = (
                f"{measured.halo_before} + {measured.halo_after} px as measured, not "
                f"{declared.halo} as {who} says, which would not be exact"
            )
            smaller.setdefault(text, []).append(name)
    return [f"halo along {' and '.join(names)}: {text}" for text, names in smaller.items()]


def _check_size(who: str, name: str, declared: DeclaredAxis, measured: AxisGeometry) -> None:
    if declared.size is None:
        return
    if measured.fixed:
        short = measured.size - declared.size
        fits = not short if declared.step is None else short >= 0 and short % declared.step == 0
    else:
        # A declared fixed size may be one of many; a declared series must not leave the measured.
        fits = (declared.size - measured.size) % measured.step == 0 and (
            declared.step is None or declared.step % measured.step == 0
        )
    if not fits:
        raise ModelError(
            f"{who} says tiles of {_series(declared.size, declared.step)} px along {name}, "
            f"measured were {_series(measured.size, measured.step or None)}; correct the "
            "description, or use tile to choose a size"
        )


def _series(size: int, step: int | None) -> str:
    return f"{size}" if step is None else f"{size} + n * {step}"
