"""Where the glands, nuclei and look-alikes of a synthetic tissue lie."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .ellipses import REACH_PX, Ellipses
from .plane import Block, Floats, Plane, Points

EPITHELIUM_PX = 36.0
"""Thickness of a gland's wall."""

_VESSEL_WALL_PX = 7.0
_GLAND_CELL_PX = 300
_WARP_PX = 13
_WARP_SCALE_PX = 70


class Glands(NamedTuple):
    """Glands, and vessels where ``vessel`` is set, one entry of each column for each."""

    row: Points
    """Index of the gland's cell along y; with ``column`` it is the gland's name."""
    column: Points
    y: Points
    x: Points
    radius: Points
    aspect: Points
    angle: Points
    vessel: NDArray[np.bool_]

    def wall(self, each: int) -> float:
        """Return the thickness of one's wall in pixels."""
        return _VESSEL_WALL_PX if self.vessel[each] else EPITHELIUM_PX

    # For a few points in float64 as for all pixels of a block in float32.
    def depth(self, each: int, y: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
        """Return how many pixels inside one's outline warped places lie, negative outside."""
        cos, sin = np.float32(np.cos(self.angle[each])), np.float32(np.sin(self.angle[each]))
        dy, dx = y - np.float32(self.y[each]), x - np.float32(self.x[each])
        along, across = dx * cos + dy * sin, (dy * cos - dx * sin) / np.float32(self.aspect[each])
        return np.asarray(np.float32(self.radius[each]) - np.hypot(along, across))


class _Ring(NamedTuple):
    """Places in the walls of glands."""

    y: Points
    x: Points
    inwards: Points
    """Direction of the gland's middle in radians."""
    vessel: NDArray[np.bool_]
    chance: Points
    size: Points
    shade: Points


class Anatomy:
    """The parts of one slide that may touch one block."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.plane: Plane = block.plane
        self.slant = float(self.plane.uniform(1, np.zeros(1), np.zeros(1))[0]) * np.pi
        self.glands = self._glands()

    def fibres(self) -> Floats:
        """Return the collagen, about ``[-1, 1]`` at each pixel: noise stretched along the flow."""
        y, x = self.block.pixels()
        wave = 260 * self.block.noise(3, 430) + 70 * self.block.noise(4, 160)
        cos, sin = np.float32(math.cos(self.slant)), np.float32(math.sin(self.slant))
        across, along = y * cos + x * sin + wave, x * cos - y * sin + wave
        bundles = self.plane.lookup(across / 11, along / 150)
        return 0.62 * bundles + 0.42 * self.plane.lookup(along / 64 + 77, across / 4.2)

    def glass(self) -> Floats:
        """Return a field that is positive where no tissue lies, at each pixel."""
        return self.block.noise(30, 1700) - 0.62 + 0.13 * self.block.noise(31, 260)

    def warped_pixels(self) -> tuple[Floats, Floats]:
        """Return the places at which :meth:`Glands.depth` makes uneven outlines."""
        y, x = self.block.pixels()
        return (
            y + _WARP_PX * self.block.noise(5, _WARP_SCALE_PX),
            x + _WARP_PX * self.block.noise(6, _WARP_SCALE_PX),
        )

    def nuclei(self) -> list[Ellipses]:
        """Return all that the truth calls nucleus."""
        stroma = [self._fibroblasts(), self._large(), self._lymphocytes()]
        outside = [kind.where(self._depth(kind.y, kind.x) < -6) for kind in stroma]
        glands = [self._lining(9.0, 60, 0.93), self._lining(21.0, 75, 0.38)]
        every = [*outside, *glands, self._endothelium()]
        return [kind.where(~self._on_glass(kind.y, kind.x)) for kind in every]

    def mucin(self) -> Ellipses:
        """Return the pale drops of the goblet cells."""
        ring = self._ring(25.0, 15, 90)
        long, short = 7 + 4 * ring.size, 4.5 + 2.5 * ring.size
        drops = _even(ring.y, ring.x, long, short, ring.inwards, np.ones_like(ring.y))
        return drops.where(~ring.vessel & (ring.chance < 0.6))

    def blood(self) -> Ellipses:
        """Return red blood cells: crowded in vessels, a few bled into the stroma."""
        y, x, chance, size, shade, turn = self._scatter(130, 12)
        bled = (self.plane.noise(136, 260, y, x) > 0.62) & (chance < 0.55)
        bled &= self._depth(y, x) < -6
        long = 5.2 + 1.2 * size
        cells = _even(y, x, long, long * (0.8 + 0.2 * turn), np.pi * turn, shade + 0.5)
        flowing = self._in_vessel(y, x) & (chance < 0.8)
        return cells.where((bled | flowing) & ~self._on_glass(y, x))

    def smears(self) -> Ellipses:
        """Return nuclei of the section's other side, out of focus: dark, but with no border."""
        y, x, chance, size, shade, turn = self._scatter(160, 30)
        long = 7 + 4 * size
        blurred = _even(y, x, long, long * (0.5 + 0.4 * shade), np.pi * turn, 0.5 + size)
        keep = chance < 0.25 + 0.5 * self.plane.noise(166, 300, y, x)
        return blurred.where(keep & (self._depth(y, x) < -6) & ~self._on_glass(y, x))

    def specks(self) -> list[Ellipses]:
        """Return pigment grains in clumps, and dust, which lies on the glass too."""
        y, x, chance, size, shade, turn = self._scatter(140, 8)
        long, short = 1.6 + 4.2 * size**2, 1.4 + 3.4 * size**2 * shade
        grains = _even(y, x, long, short, np.pi * turn, 0.7 + 0.9 * shade)
        keep = chance < 2.4 * self.plane.noise(146, 70, y, x) - 1.45
        grains = grains.where(keep & (self._depth(y, x) < 0) & ~self._on_glass(y, x))
        y, x, chance, size, shade, turn = self._scatter(150, 48)
        dust = _even(y, x, 1.2 + 3.2 * size, 1.0 + 1.6 * turn, np.pi * turn, 1.1 + shade)
        return [grains, dust.where(chance < 0.07)]

    def _glands(self) -> Glands:
        plane = self.plane
        j, i = self.block.cells(_GLAND_CELL_PX, reach=_GLAND_CELL_PX // 2)
        vessel = plane.uniform(40, j, i) < 0.16
        size = plane.uniform(41, j, i)
        radius = np.where(vessel, 18 + 22 * size, 58 + 48 * size)
        y = (j + 0.5) * _GLAND_CELL_PX + 36 * (2 * plane.uniform(42, j, i) - 1)
        x = (i + 0.5) * _GLAND_CELL_PX + 36 * (2 * plane.uniform(43, j, i) - 1)
        aspect, angle = 0.78 + 0.22 * plane.uniform(44, j, i), np.pi * plane.uniform(45, j, i)
        keep = vessel | (plane.noise(46, 1300, y, x) + 0.35 * plane.uniform(47, j, i) > -0.02)
        keep &= ~self._on_glass(y, x) & (plane.uniform(48, j, i) < 0.93)
        every = Glands(j, i, y, x, radius, aspect, angle, vessel)
        return Glands._make(column[keep] for column in every)

    def _on_glass(self, y: Points, x: Points) -> NDArray[np.bool_]:
        noise = self.plane.noise
        return np.asarray(noise(30, 1700, y, x) - 0.62 + 0.13 * noise(31, 260, y, x) > -0.02)

    def _warp(self, y: Points, x: Points) -> tuple[Points, Points]:
        noise = self.plane.noise
        shift_y = _WARP_PX * noise(5, _WARP_SCALE_PX, y, x)
        return shift_y, _WARP_PX * noise(6, _WARP_SCALE_PX, y, x)

    def _depth(self, y: Points, x: Points) -> Points:
        """Return how deep points lie in the nearest gland or vessel, in pixels."""
        warp_y, warp_x = self._warp(y, x)
        depth: Points = np.full(y.shape, -1e9)
        for each in range(self.glands.y.size):
            np.maximum(depth, self.glands.depth(each, y + warp_y, x + warp_x), out=depth)
        return depth

    def _in_vessel(self, y: Points, x: Points) -> NDArray[np.bool_]:
        warp_y, warp_x = self._warp(y, x)
        inside = np.zeros(y.shape, np.bool_)
        for each in np.flatnonzero(self.glands.vessel):
            inside |= self.glands.depth(int(each), y + warp_y, x + warp_x) > _VESSEL_WALL_PX
        return inside

    def _scatter(self, salt: int, cell_px: int) -> tuple[Points, ...]:
        """Return a point in each cell, y and x, and four random numbers for it."""
        j, i = self.block.cells(cell_px, reach=REACH_PX)
        y = (j + 0.1 + 0.8 * self.plane.uniform(salt, j, i)) * cell_px
        x = (i + 0.1 + 0.8 * self.plane.uniform(salt + 1, j, i)) * cell_px
        return y, x, *(self.plane.uniform(salt + k, j, i) for k in (2, 3, 4, 5))

    def _flow(self, y: Points, x: Points) -> Points:
        """Return the field whose contours are the fibres."""
        wave = 260 * self.plane.noise(3, 430, y, x) + 70 * self.plane.noise(4, 160, y, x)
        return y * math.cos(self.slant) + x * math.sin(self.slant) + wave

    def _fibroblasts(self) -> Ellipses:
        """Return the slender nuclei that lie along the fibres."""
        y, x, chance, size, shade, turn = self._scatter(100, 24)
        slope_y = self._flow(y + 3, x) - self._flow(y - 3, x)
        slope_x = self._flow(y, x + 3) - self._flow(y, x - 3)
        angle = np.arctan2(slope_x, -slope_y) + 0.5 * (turn - 0.5)
        long, short = 7 + 5.5 * size, 2.7 + 1.8 * turn
        found = Ellipses(y, x, long, short, angle, 0.62 + 0.50 * shade, 0.25 * size)
        return found.where(chance < 0.42 + 0.22 * self.plane.noise(106, 260, y, x))

    def _large(self) -> Ellipses:
        """Return the large pale nuclei with a dark rim."""
        y, x, chance, size, shade, turn = self._scatter(110, 34)
        long = 6.5 + 3.5 * size
        short, stain = long * (0.68 + 0.3 * turn), 0.56 + 0.34 * shade
        found = Ellipses(y, x, long, short, np.pi * turn, stain, 0.6 + 0.3 * shade)
        return found.where(chance < 0.22 + 0.35 * self.plane.noise(116, 420, y, x))

    def _lymphocytes(self) -> Ellipses:
        """Return the small dark round nuclei, which crowd in places."""
        y, x, chance, size, shade, turn = self._scatter(120, 13)
        long = 4.1 + 1.6 * size
        found = Ellipses(y, x, long, long * 0.88, np.pi * turn, 0.95 + 0.45 * shade, 0.3 * shade)
        return found.where(chance < 2.6 * self.plane.noise(126, 330, y, x) - 0.9)

    def _lining(self, depth_px: float, salt: int, share: float) -> Ellipses:
        """Return a row of nuclei in the glands' epithelium, standing on its outline."""
        ring = self._ring(depth_px, 10.5, salt)
        long, short = 6.6 + 2.6 * ring.size, 4.0 + 1.4 * ring.shade
        angle, stain = ring.inwards + 0.5 * (ring.size - 0.5), 0.70 + 0.42 * ring.shade
        found = Ellipses(ring.y, ring.x, long, short, angle, stain, 0.55 * ring.chance)
        return found.where(~ring.vessel & (ring.chance < share))

    def _endothelium(self) -> Ellipses:
        """Return the flat nuclei in the walls of vessels."""
        ring = self._ring(2.5, 19, 64)
        long, short = 6.5 + 3 * ring.shade, 2.6 + 0.8 * ring.shade
        angle, stain = ring.inwards + np.pi / 2, 0.95 + 0.3 * ring.shade
        found = Ellipses(ring.y, ring.x, long, short, angle, stain, 0.1 * ring.shade)
        return found.where(ring.vessel & (ring.chance < 0.75))

    def _ring(self, depth_px: float, spacing_px: float, salt: int) -> _Ring:
        """Return places at a depth inside the outlines of all glands and vessels."""
        all_ = self.glands
        counts = np.maximum(6, 2 * np.pi * all_.radius * 0.88 / spacing_px).astype(np.int64)
        gland = np.repeat(np.arange(counts.size), counts)
        place = np.arange(gland.size) - np.repeat(np.cumsum(counts) - counts, counts)
        # No gland has a thousand places, so each place has a key of its own.
        key = all_.row[gland], all_.column[gland] * 1000 + place
        jitter, sink, chance, size, shade = (self.plane.uniform(salt + k, *key) for k in range(5))
        around = 2 * np.pi * (place + 0.55 * (jitter - 0.5)) / counts[gland]
        reach = all_.radius[gland] - depth_px - 5.0 * (sink - 0.5)
        along, across = reach * np.cos(around), reach * all_.aspect[gland] * np.sin(around)
        cos, sin = np.cos(all_.angle[gland]), np.sin(all_.angle[gland])
        aim_y = all_.y[gland] + along * sin + across * cos
        aim_x = all_.x[gland] + along * cos - across * sin
        y, x = aim_y, aim_x
        for _ in range(3):  # the outline is warped: find the place that the warp takes there
            warp_y, warp_x = self._warp(y, x)
            y, x = aim_y - warp_y, aim_x - warp_x
        inwards = np.arctan2(all_.y[gland] - y, all_.x[gland] - x)
        return _Ring(y, x, inwards, all_.vessel[gland], chance, size, shade)


def _even(
    y: Points, x: Points, long: Points, short: Points, angle: Points, stain: Points
) -> Ellipses:
    return Ellipses(y, x, long, short, angle, stain, np.zeros_like(y))
