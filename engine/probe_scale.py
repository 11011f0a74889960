"""The scale of a network's output: how many pixels it makes of one."""

from collections.abc import Iterator

import numpy as np

from ..tiler.errors import ModelError
from ..tiler.scale import LARGEST, SAME, Scale
from .probe_bench import Bench, Shape, centre
from .probe_period import COMMON_SHIFTS, ROUNDING

_LIKELY_SAME = 0.55
"""A tile that keeps this share of its pixels lost the rest to its margin."""
_GROWTHS_PX = (64, 128, 96, 192, 36, 72, 50, 100, 256)
_NEAR = 0.1


def measure_scale(bench: Bench, size: Shape, free: tuple[bool, bool]) -> Scale:
    """Return the output pixels per tile pixel.

    A tile that can grow tells it by how much its output grows. For a fixed one it is the scale at
    which two shifted crops agree, or if none do, the one that explains the size.

    Args:
        bench: The network.
        size: A tile that it takes.
        free: Whether height and width can be changed.

    Raises:
        ModelError: It is neither n nor 1/n, or not the same along both axes.
    """
    ratios = [out / px for out, px in zip(bench.out(size), size, strict=True)]
    if all(_LIKELY_SAME < ratio <= 1 for ratio in ratios):
        return SAME
    if any(free):
        found = _growth(bench, size, free)
        if found:
            return found
    else:
        for scale in _candidates(size, bench.out(size)):
            if _agree(bench, size, scale):
                return scale
    exact = [_near(ratio, 0.0) for ratio in ratios]
    if exact[0] is not None and exact[0] == exact[1]:
        return exact[0]
    if all(ratio <= 1 for ratio in ratios):
        return SAME
    raise ModelError(
        f"the output must have a scale of n or 1/n, got {ratios[0]:g} ({size[0]} x {size[1]} px "
        f"give {bench.out(size)[0]} x {bench.out(size)[1]}); resize it inside the network"
    )


def _growth(bench: Bench, size: Shape, free: tuple[bool, bool]) -> Scale | None:
    """Return by how much the output grows with the tile, ``None`` if no larger one is taken.

    Two growths have to agree on another scale than 1, for the outputs of deep networks grow in
    large jumps.
    """
    seen: set[Scale] = set()
    growths: tuple[float, ...] = ()
    for by in _GROWTHS_PX:
        output = bench.try_run((size[0] + by * free[0], size[1] + by * free[1]))
        if output is None:
            continue
        sides = zip(output.shape[1:], bench.out(size), free, strict=True)
        growths = tuple((after - before) / by for after, before, f in sides if f)
        scales = {_near(growth, _NEAR) for growth in growths}
        scale = scales.pop()
        if scale is not None and not scales and (scale == SAME or scale in seen):
            return scale
        seen |= set() if scale is None or scales else {scale}
    if not growths:
        return None
    raise ModelError(
        "the output must grow with the tile at a scale of n or 1/n, the same along both axes, got "
        f"{' and '.join(f'{growth:g}' for growth in growths)}; resize it inside the network"
    )


def _near(ratio: float, tolerance: float) -> Scale | None:
    """Return the scale next to a ratio, ``None`` if it is not near."""
    if ratio <= 0:
        return None
    n = round(ratio if ratio >= 1 else 1 / ratio)
    scale = Scale(up=min(n, LARGEST)) if ratio >= 1 else Scale(down=min(n, LARGEST))
    near = abs(ratio * scale.down / scale.up - 1) <= tolerance
    return scale if near else None


def _candidates(size: Shape, out: Shape) -> Iterator[Scale]:
    """Yield the scales that a fixed tile's output may have, the plainest first."""
    powers = [1 << bit for bit in range(LARGEST.bit_length())]
    scales = [SAME, *(Scale(down=n) for n in powers[1:]), *(Scale(up=n) for n in (2, 3, 4, 8))]
    exact = [s for s in scales if all(s.mask_px(n) == m for n, m in zip(size, out, strict=True))]
    yield from exact
    for scale in scales:
        largest = min(scale.mask_px(n) - m for n, m in zip(size, out, strict=True))
        if scale not in exact and largest >= -scale.up:
            yield scale


def _agree(bench: Bench, size: Shape, scale: Scale) -> bool:
    """Say whether two crops agree deep inside, if the output has this scale."""
    reference, shortest = bench.run(size), min(bench.out(size))
    for px in COMMON_SHIFTS:
        if px % scale.down or shortest - scale.mask_px(px) < max(4, shortest // 4):
            continue
        error = bench.difference(reference, bench.run(size, (px, px)), (px, px), scale)
        height, width = error.shape
        if error[centre(height), centre(width)].max() <= ROUNDING * np.abs(reference).max():
            return True
    return False
