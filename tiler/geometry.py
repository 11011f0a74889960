"""What planning has to know of a network: sizes, margin, halo and period, per axis."""

from dataclasses import dataclass, replace
from math import lcm

from .errors import SettingError
from .scale import SAME, Scale


@dataclass(frozen=True, slots=True)
class AxisGeometry:
    """How a network maps tile pixels to output pixels along one axis.

    ::

        tile    |<------------------------ size ------------------------>|
        output  |margin_before|<----------- output ------->|margin_after |
        usable                |halo_before|    core   |halo_after|

    The margin is what valid convolutions remove; the halo is there, but spoiled by zero padding.
    Tiles, steps and periods count pixels of the image; outputs, halos and cores those of the mask;
    margins fine pixels (see ``Scale``). Where the mask has the image's scale all are the same.
    """

    size: int
    """A tile size the network takes: the only one if fixed, else the smallest known."""
    step: int
    """Difference between neighbouring valid tile sizes; 0 for a fixed size."""
    period: int
    """Smallest shift under which the network is equivariant."""
    margin_before: int
    """Fine pixels from the start of the tile to the first output pixel."""
    margin_after: int
    """Fine pixels from the last output pixel to the end of the tile."""
    halo_before: int = 0
    """Spoiled output pixels at the start."""
    halo_after: int = 0
    """Spoiled output pixels at the end."""
    scale: Scale = SAME
    """Output pixels per tile pixel."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.step < 0 or self.period < 1:
            raise SettingError(
                f"a network needs size >= 1, step >= 0, period >= 1; got size={self.size}, "
                f"step={self.step}, period={self.period}"
            )
        if self.period % self.scale.down:
            raise SettingError(
                f"a period is whole pixels of mask; got {self.period} px at scale {self.scale}"
            )
        if min(self.halo_before, self.halo_after) < 0:
            raise SettingError("a halo must not be negative")
        if min(self.margin_before, self.margin_after) < 0 and self.scale == SAME:
            raise SettingError("a margin must not be negative")
        if self.output(self.size) < 1:
            raise SettingError(f"a {self.size}-px tile leaves no output inside the margin")

    @property
    def lost(self) -> int:
        """Fine pixels of the tile that have no output pixel."""
        return self.margin_before + self.margin_after

    @property
    def fixed(self) -> bool:
        """Whether only one tile size is possible."""
        return self.step == 0

    @property
    def period_out(self) -> int:
        """The period in pixels of the mask: cores are multiples of it."""
        return self.scale.mask_px(self.period)

    @property
    def halo_aligned(self) -> int:
        """``halo_before`` rounded up to the period, so that a halo never changes the phase."""
        return -(-self.halo_before // self.period_out) * self.period_out

    @property
    def skew(self) -> int:
        """Output pixels by which the output lies nearer to the tile's start than to its end."""
        return (self.margin_after - self.margin_before) // self.scale.down

    def symmetric(self) -> "AxisGeometry":
        """Return the geometry with halos large enough for a flipped tile too."""
        return replace(
            self,
            halo_before=max(self.halo_before, self.halo_after + self.skew),
            halo_after=max(self.halo_after, self.halo_before - self.skew),
        )

    def lead(self, halo: int) -> int:
        """Return the tile pixels before the output that remains without ``halo`` pixels of it."""
        return -(-(self.margin_before + halo * self.scale.down) // self.scale.up)

    def crop(self, lead: int) -> int:
        """Return the output pixels before the one that lies ``lead`` pixels into the tile."""
        return (lead * self.scale.up - self.margin_before) // self.scale.down

    def crop_flipped(self, lead: int, window: int, tile: int) -> int:
        """Return where in a flipped tile's output the window lies that ``lead`` precedes."""
        return self.output(tile) + self.skew - self.crop(lead) - window

    def output(self, tile: int) -> int:
        """Return the output pixels of a tile."""
        return (tile * self.scale.up - self.lost) // self.scale.down

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
        short = self.scale.image_px(output - self.output(self.size))
        if short <= 0:
            return self.size
        if self.fixed:
            raise SettingError(
                f"a fixed {self.size}-px tile gives {self.output(self.size)} px, {output} needed"
            )
        return self.size + -(-short // self.step) * self.step

    def core_of(self, tile: int) -> int:
        """Return the largest core of a tile: a multiple of the period, 0 where none is left."""
        before = self.crop(self.lead(self.halo_aligned))
        usable = self.output(tile) - before - self.halo_after
        return max(0, usable // self.period_out * self.period_out)

    def tile_of_core(self, core: int) -> int:
        """Return the smallest valid tile with room for a core between the halos."""
        return self.tile_for(self.crop(self.lead(self.halo_aligned)) + core + self.halo_after)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A network's geometry along both axes."""

    y: AxisGeometry
    x: AxisGeometry

    def symmetric(self) -> "Geometry":
        """Return the geometry with halos large enough for flipped tiles too."""
        return Geometry(self.y.symmetric(), self.x.symmetric())

    def square(self) -> "Geometry":
        """Return the geometry with one axis for both, large enough for either.

        Raises:
            SettingError: Sizes, margins or scales differ, so that tiles cannot be transposed.
        """
        y, x = self.y, self.x
        if (y.size, y.step, y.lost, y.scale, y.skew) != (x.size, x.step, x.lost, x.scale, x.skew):
            raise SettingError(
                f"only square tiles can be transposed; the network takes {y.size} x {x.size} px "
                f"and loses {y.lost} and {x.lost}; use tta=flips"
            )
        axis = replace(
            y,
            period=lcm(y.period, x.period),
            halo_before=max(y.halo_before, x.halo_before),
            halo_after=max(y.halo_after, x.halo_after),
        )
        return Geometry(axis, axis)
