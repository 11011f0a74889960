"""What planning has to know of a network: sizes, margin, halo and period, per axis."""

from dataclasses import dataclass

from .errors import SettingError


@dataclass(frozen=True, slots=True)
class AxisGeometry:
    """How a network maps tile pixels to output pixels along one axis.

    ::

        tile    |<------------------------ size ------------------------>|
        output  |margin_before|<----------- output ------->|margin_after |
        usable                |halo_before|    core   |halo_after|

    The margin is what valid convolutions remove; the halo is there, but spoiled by zero padding.
    """

    size: int
    """A tile size the network takes, in pixels: the only one if fixed, else the smallest known."""
    step: int
    """Difference between neighbouring valid tile sizes in pixels; 0 for a fixed size."""
    period: int
    """Smallest shift in pixels under which the network is equivariant."""
    margin_before: int
    """Pixels lost before the first output pixel."""
    margin_after: int
    """Pixels lost after the last output pixel."""
    halo_before: int = 0
    """Spoiled output pixels at the start."""
    halo_after: int = 0
    """Spoiled output pixels at the end."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.step < 0 or self.period < 1:
            raise SettingError(
                f"a network needs size >= 1, step >= 0, period >= 1; got size={self.size}, "
                f"step={self.step}, period={self.period}"
            )
        if min(self.margin_before, self.margin_after, self.halo_before, self.halo_after) < 0:
            raise SettingError("margin and halo must not be negative")
        if self.output(self.size) < 1:
            raise SettingError(f"a {self.size}-px tile leaves no output inside the margin")

    @property
    def lost(self) -> int:
        """Pixels of the tile that have no output pixel."""
        return self.margin_before + self.margin_after

    @property
    def fixed(self) -> bool:
        """Whether only one tile size is possible."""
        return self.step == 0

    @property
    def halo_aligned(self) -> int:
        """``halo_before`` rounded up to the period, so that a halo never changes the phase."""
        return -(-self.halo_before // self.period) * self.period

    def output(self, tile: int) -> int:
        """Return the output pixels of a tile."""
        return tile - self.lost

    def takes(self, tile: int) -> bool:
        """Say whether a tile size is one of the valid ones."""
        if self.fixed:
            return tile == self.size
        return tile >= self.size and (tile - self.size) % self.step == 0

    def tile_for(self, output: int) -> int:
        """Return the smallest valid tile with at least ``output`` output pixels.

        Raises:
            SettingError: The size is fixed and too small.
        """
        short = output + self.lost - self.size
        if short <= 0:
            return self.size
        if self.fixed:
            raise SettingError(
                f"a fixed {self.size}-px tile gives {self.output(self.size)} px, {output} needed"
            )
        return self.size + -(-short // self.step) * self.step

    def core_of(self, tile: int) -> int:
        """Return the largest core of a tile: a multiple of the period, 0 where none is left."""
        usable = self.output(tile) - self.halo_aligned - self.halo_after
        return max(0, usable // self.period * self.period)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A network's geometry along both axes."""

    y: AxisGeometry
    x: AxisGeometry
