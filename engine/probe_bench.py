"""The bench on which a network is probed: it runs crops of one noise image."""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..tiler.errors import ModelError, OutOfMemoryError
from ..tiler.scale import SAME, Scale
from .memory import available_bytes, human

Shape = tuple[int, int]
"""Height and width in pixels."""
Logits = NDArray[np.float32]
"""Output of one tile, ``(class, y, x)``."""

_REPEAT_PX = 997  # primes, so that what repeats shares no divisor with any period
_TREAD_PX = 61
_RAMP_PX = 1024
_MESH_PX = 64


class LogitsFunction(Protocol):
    """A network as a function."""

    def __call__(self, tiles: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Return logits ``(batch, class, y', x')`` of tiles ``(batch, channel, y, x)``.

        Logits are what comes before a final sigmoid, softmax or argmax. Any exception means that
        the network refuses this size.
        """
        ...


_NOISES = 3
"""Arrays of the noise's size that are needed to make it."""


def _check_memory(needed_bytes: int, channels: int) -> None:
    free_bytes = available_bytes()
    if needed_bytes > free_bytes:
        raise OutOfMemoryError(
            f"measuring a network of {channels} channels needs {human(needed_bytes)}, and "
            f"{human(free_bytes)} are free; check the channels that its file states, or use a "
            "machine with more memory"
        )


class Bench:
    """Runs a network on crops of one noise image and counts the runs.

    The noise is white plus 16-px patches, which reach deep layers. Flat rectangles cover a quarter
    of it, for branches that work only where an image is flat or has straight edges. A staircase of
    brightness gives two shifted crops clearly different means, so that a network that pools the
    whole tile shows it. All comes at the amplitude of a normalised image, of raw bytes, and where
    images hold larger numbers yet, at theirs.
    """

    def __init__(
        self, logits: LogitsFunction, channels: int, seed: int, largest: float = 1.0
    ) -> None:
        self._logits = logits
        rng = np.random.default_rng(seed)
        side = _REPEAT_PX
        _check_memory(_NOISES * channels * side * side * 4, channels)
        fine = rng.standard_normal((channels, side, side), dtype=np.float32)
        coarse = rng.standard_normal((channels, side // 16 + 1, side // 16 + 1), dtype=np.float32)
        self._noise = fine + coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :side, :side]
        _flatten(self._noise, rng)
        self.amplitudes: tuple[float, ...] = (1.0, 64.0)
        """Amplitudes that tell something of this network, the most telling first."""
        if largest > 4 * 64:
            self.amplitudes += (largest / 2,)  # the noise reaches well beyond 2
        self.scale = SAME
        """Output pixels per tile pixel, once it is measured."""
        self.runs = 0
        """Network runs so far."""
        self.refusal: Exception | None = None
        """Why the network refused a size, the last time it did."""
        self.lowest = math.inf
        """Smallest logit of all runs without NaN or infinity."""
        self.highest = -math.inf
        """Largest logit of these runs."""
        self.whole_numbers = True
        """Whether all logits of these runs were whole numbers, as labels are."""
        self._kept: dict[tuple[Shape, float], Logits] = {}

    def run(
        self,
        size: Shape,
        origin: Shape = (0, 0),
        *,
        amplitude: float | None = None,
        change: slice | None = None,
        both_axes: bool = True,
    ) -> Logits:
        """Return the logits of one crop.

        Args:
            size: Tile size in pixels.
            origin: Where the crop starts in the noise image.
            amplitude: Factor on the noise; the most telling one where ``None``.
            change: Rows of the crop, and columns, whose pixels are changed.
            both_axes: Whether to change columns as well as rows.

        Raises:
            ModelError: The output is not one map per class.
        """
        amplitude = self.amplitudes[0] if amplitude is None else amplitude
        reference = origin == (0, 0) and change is None
        if reference and (size, amplitude) in self._kept:
            return self._kept[size, amplitude]
        rows, columns = (np.arange(o, o + n) for o, n in zip(origin, size, strict=True))
        tile = self._noise[:, rows % _REPEAT_PX][:, :, columns % _REPEAT_PX]
        stairs = (rows[:, None] // _TREAD_PX + columns // _TREAD_PX) * (_TREAD_PX / _RAMP_PX)
        tile = tile + stairs.astype(np.float32)
        if change is not None:
            changed = 2 - 3 * tile
            tile[:, change] = changed[:, change]
            if both_axes:
                tile[:, :, change] = changed[:, :, change]
        tile *= np.float32(amplitude)
        self.runs += 1
        output: NDArray[np.float32] = np.asarray(
            self._logits(np.ascontiguousarray(tile[None])), dtype=np.float32
        )
        if output.ndim != 4 or min(output.shape) < 1:
            raise ModelError(
                f"a network must return a map (batch, class, y, x), got shape {output.shape}; "
                "name the output that holds the map"
            )
        result: Logits = output[0]
        self._note_range(result)
        if reference:  # asked for again and again: one per amplitude is kept
            if len(self._kept) == len(self.amplitudes):
                self._kept.pop(next(iter(self._kept)))
            self._kept[size, amplitude] = result
        return result

    def _note_range(self, output: Logits) -> None:
        if np.isfinite(output).all():
            lowest, highest = float(output.min()), float(output.max())
            self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
            # Above 2^24 every number in single precision is a whole one.
            small = max(-lowest, highest) < 1 << 20
            self.whole_numbers &= small and bool((output == np.rint(output)).all())

    def out(self, size: Shape) -> Shape:
        """Return the height and width of the output."""
        output = self.run(size)
        return output.shape[1], output.shape[2]

    def try_run(self, size: Shape) -> Logits | None:
        """Return the logits of the first crop, ``None`` where the network refuses the size."""
        try:
            return self.run(size)
        except ModelError:
            raise
        except Exception as error:  # every backend refuses in its own words
            self.refusal = error
            return None

    def check_repeats(self, size: Shape, rounding: float) -> None:
        """Check that the same tile gives the same logits again.

        Args:
            size: Tile size in pixels.
            rounding: Largest |difference| over the largest logit that may be.

        Raises:
            ModelError: It does not.
        """
        first = self.run(size)
        self._kept.clear()
        error = np.abs(self.run(size) - first)
        if not error.max() <= rounding * np.abs(first).max() and np.isfinite(first).all():
            raise ModelError(
                "a network must answer alike each time, and this one does not (a dropout that is "
                "still on?); export it in evaluation mode"
            )

    def inspect(self, size: Shape) -> None:
        """Check that the output is a map that tells something.

        Raises:
            ModelError: The output is constant, or not finite.
        """
        spreads: dict[float, NDArray[np.float32]] = {}
        out = self.out(size)
        for amplitude in self.amplitudes:
            output = self.run(size, amplitude=amplitude)
            if np.isfinite(output).all():
                spread = np.ptp(output.reshape(len(output), -1), axis=1)
                spreads[amplitude] = spread / max(float(np.abs(output).max()), 1e-30)
        if out == (1, 1):
            raise ModelError(
                f"a network must return a map, got 1 x 1 px for a {size[0]} x {size[1]} tile; "
                "use a segmentation network"
            )
        if not spreads:
            raise ModelError("a network must return finite logits, got NaN or infinity on noise")
        # A class may be constant by design (background 0), but then another one has to tell.
        varying = np.max(list(spreads.values()), axis=0) > 1e-6
        if not varying.any():
            raise ModelError(
                "the output is constant on noise, so nothing can be measured; choose the output "
                "that holds the logits"
            )
        # Unit amplitude, which saturates no gate, unless it drowns in what the network adds.
        telling = [a for a in spreads if float(spreads[a][varying].min()) > 1e-3]
        self.amplitudes = tuple(sorted(spreads, key=lambda a: a not in telling))

    def difference(
        self, one: Logits, other: Logits, shift: Shape, scale: Scale | None = None
    ) -> NDArray[np.float32]:
        """Return the largest |difference| over classes, ``(y, x)``, of two crops that overlap.

        Args:
            one: Logits of the first crop.
            other: Logits of a crop that starts ``shift`` pixels later.
            shift: Tile pixels along y and x, not negative.
            scale: Of the output; the measured one where ``None``.
        """
        y, x = ((scale or self.scale).mask_px(px) for px in shift)
        height = min(one.shape[1] - y, other.shape[1])
        width = min(one.shape[2] - x, other.shape[2])
        mine = one[:, y : y + height, x : x + width]
        result: NDArray[np.float32] = np.abs(mine - other[:, :height, :width]).max(axis=0)
        return result

    def lost(self, size: Shape, output: Logits) -> Shape:
        """Return the fine pixels of a tile that have no output pixel."""
        up, down = self.scale.up, self.scale.down
        return size[0] * up - output.shape[1] * down, size[1] * up - output.shape[2] * down


def centre(length: int, part: int = 8) -> slice:
    """Return the central ``1 / part`` of an axis, at least two pixels: what is deep inside."""
    half = max(1, length // (2 * part))
    return slice(length // 2 - half, length // 2 + half)


def _flatten(noise: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Put a rectangle of one brightness on every other node of a grid.

    The grid starts at the first pixel, so that rectangles lie across the start of a tile, and at
    many sizes across its end; the first node stays noise, for tiles smaller than a mesh.
    """
    nodes = -(-noise.shape[1] // _MESH_PX)
    for node in np.argwhere(np.indices((nodes, nodes)).sum(axis=0) % 2):
        size = rng.integers(24, _MESH_PX, 2, endpoint=True)
        start = node * _MESH_PX - size // 2 + rng.integers(-6, 6, 2, endpoint=True)
        y, x = (slice(max(0, a), a + n) for a, n in zip(start, size, strict=True))
        noise[:, y, x] = 2 * rng.standard_normal((len(noise), 1, 1), dtype=np.float32)
