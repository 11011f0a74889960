"""What a description says of tiles: sizes, margin and halo, to be held against the measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeclaredAxis:
    """One axis of a described network; ``None`` where the description leaves it open."""

    size: int | None = None
    """A valid tile size in pixels: the only one, or with ``step`` the smallest."""
    step: int | None = None
    """Difference between neighbouring valid tile sizes in pixels; ``None`` for a fixed size."""
    scale: float | None = None
    """Output pixels per pixel of a tile."""
    offset: float | None = None
    """Output pixels that a tile gives besides: negative where some are lost."""
    halo: int | None = None
    """Spoiled output pixels on each side."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A described network along both axes, and its classes."""

    y: DeclaredAxis
    """Rows."""
    x: DeclaredAxis
    """Columns."""
    classes: int | None = None
    """Output channels."""
