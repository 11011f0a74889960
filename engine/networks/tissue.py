"""A synthetic H&E-like tissue slide with its truth, any rectangle of which can be made alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import SettingError
from .anatomy import EPITHELIUM_PX, Anatomy
from .ellipses import draw
from .plane import BLOCK_PX, Block, Floats, Plane

DEMO_SEED = 2015
"""Seed of the slide that the demo shows; the demo network never saw it in training."""

PIXEL_SIZE_UM = 0.5
"""Micrometres per pixel, as of a 20x objective."""

_TILE_PX = 256
JPEG_QUALITY = 90

# Optical density per unit of stain in (red, green, blue): light falls off as exp(-density).
_HAEMATOXYLIN = (0.86, 0.98, 0.46)
_EOSIN = (0.14, 0.98, 0.42)
_BLOOD = (0.16, 1.00, 0.86)
_PIGMENT = (0.80, 0.98, 1.16)


class Tissue(NamedTuple):
    """A rectangle of a slide."""

    image: NDArray[np.uint8]
    """Colours, ``(y, x, 3)``."""
    labels: NDArray[np.uint8]
    """Truth, ``(y, x)``: 0 background, 1 nucleus."""


def tissue(region: Box | tuple[int, int], seed: int) -> Tissue:
    """Make a rectangle of the endless slide ``seed``.

    Args:
        region: A rectangle anywhere on the plane, or ``(height, width)`` from the origin.
        seed: Which slide.

    >>> whole = tissue((64, 96), seed=1)
    >>> part = tissue(Box.of(10, 64, 20, 90), seed=1)
    >>> bool((whole.image[10:64, 20:90] == part.image).all())
    True
    """
    box = region if isinstance(region, Box) else Box.of(0, region[0], 0, region[1])
    height, width = box.shape
    image = np.empty((height, width, 3), np.uint8)
    labels = np.empty((height, width), np.uint8)
    rows = range(box.y.start // BLOCK_PX, -(-box.y.stop // BLOCK_PX))
    columns = range(box.x.start // BLOCK_PX, -(-box.x.stop // BLOCK_PX))

    plane = Plane(seed)

    def fill(block: tuple[int, int]) -> None:
        y0, x0 = block[0] * BLOCK_PX, block[1] * BLOCK_PX
        made = _stained(Block(plane, y0, x0))
        y = box.y.clip(y0, y0 + BLOCK_PX)
        x = box.x.clip(x0, x0 + BLOCK_PX)
        into = Box(y.shift(-box.y.start), x.shift(-box.x.start)).slices
        out_of = Box(y.shift(-y0), x.shift(-x0)).slices
        image[into], labels[into] = made.image[out_of], made.labels[out_of]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fill, product(rows, columns)))
    return Tissue(image, labels)


def write_slide(
    path: str | Path,
    shape: tuple[int, int] = (4096, 4096),
    seed: int = DEMO_SEED,
    labels: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Write a slide as a tiled JPEG TIFF and return its truth, made strip by strip.

    Args:
        path: The TIFF to write: RGB, 256-px tiles, quality 90, resolution 0.5 um/px.
        shape: Height and width in pixels.
        seed: Which slide.
        labels: Array ``(y, x)`` to fill, such as a memory map for a slide larger than memory; a
            new one where ``None``.

    Raises:
        SettingError: ``shape`` is empty or ``labels`` has another shape.
    """
    import tifffile

    if min(shape) < 1:
        raise SettingError(f"a slide needs at least 1 x 1 px, got {shape[0]} x {shape[1]}")
    truth = np.empty(shape, np.uint8) if labels is None else labels
    if truth.shape != shape:
        raise SettingError(f"labels must have the slide's shape {shape}, got {truth.shape}")

    def tiles() -> Iterator[NDArray[np.uint8]]:
        height, width = shape
        padded = -(-width // _TILE_PX) * _TILE_PX
        for y in range(0, height, BLOCK_PX):
            rows = min(BLOCK_PX, height - y)
            strip = tissue(Box.of(y, y + -(-rows // _TILE_PX) * _TILE_PX, 0, padded), seed)
            truth[y : y + rows] = strip.labels[:rows, :width]
            for row, x in product(
                range(0, strip.labels.shape[0], _TILE_PX), range(0, padded, _TILE_PX)
            ):
                yield strip.image[row : row + _TILE_PX, x : x + _TILE_PX]

    per_cm = 1e4 / PIXEL_SIZE_UM
    tifffile.imwrite(
        path,
        tiles(),
        shape=(*shape, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(_TILE_PX, _TILE_PX),
        compression="jpeg",
        compressionargs={"level": JPEG_QUALITY},
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=None,
    )
    return truth


class _Ground(NamedTuple):
    """What lies between the nuclei, each ``(y, x)``."""

    eosin: Floats
    blue: Floats
    """Haematoxylin outside nuclei."""
    gap: Floats
    """1 where the glass shows."""


def outline_wobble(block: Block) -> tuple[Floats, Floats]:
    """Return the shifts along y and x that make outlines uneven, at each pixel of a block."""
    return 1.3 * block.noise(21, 9), 1.3 * block.noise(22, 9)


def _stained(block: Block) -> Tissue:
    """Stain and light a block, the way a bright-field scanner sees it."""
    noise = block.noise
    anatomy = Anatomy(block)
    fine, grain, cloud = noise(14, 2.3), noise(15, 5), noise(16, 34)
    eosin, blue, gap = _ground(block, anatomy, grain, cloud)

    wobble = outline_wobble(block)
    nucleus, density = draw(anatomy.nuclei(), block, wobble)
    mucin, _ = draw([anatomy.mucin()], block, wobble)
    blood, _ = draw([anatomy.blood()], block, wobble)
    _, speck = draw(anatomy.specks(), block, wobble)
    _, smear = draw([anatomy.smears()], block, wobble, border_px=11)

    free = 1 - nucleus
    blood = blood * free
    eosin = eosin * (1 - 0.72 * mucin * free) * (0.45 + 0.55 * free) + 0.10 * nucleus
    blue = (blue * (1 - 0.55 * mucin * free) + 0.62 * smear * (1 - gap)) * free
    blue = blue * (1 + 0.15 * grain) + density * (1 + 0.32 * fine + 0.34 * grain)
    # Stains vary over a slide, and a fold is twice the tissue.
    fold = np.clip(1 - np.abs(noise(19, 760) + 0.03 * cloud) / 0.016, 0, 1)
    fold = fold * np.clip(6 * noise(20, 900), 0, 1)
    blue *= (1 + 0.22 * noise(10, 1900) + 0.08 * noise(11, 240)) * (1 + 0.9 * fold)
    eosin *= (1 + 0.20 * noise(12, 1500) + 0.12 * noise(13, 190)) * (1 + 1.1 * fold)
    eosin *= 1 - 0.6 * blood
    red = 0.62 * blood * (1 + 0.12 * grain)
    brown = speck * free * (1 + 0.35 * fine + 0.25 * grain)

    light = 255 * (0.962 + 0.012 * fine)
    image = np.empty((BLOCK_PX, BLOCK_PX, 3), np.uint8)
    for channel, (h, e, r, p) in enumerate(
        zip(_HAEMATOXYLIN, _EOSIN, _BLOOD, _PIGMENT, strict=True)
    ):
        passed = np.exp(-(h * blue + e * eosin + r * red + p * brown))
        image[..., channel] = np.clip(light * passed, 0, 255)
    return Tissue(image, (nucleus >= 0.5).astype(np.uint8))


def _ground(block: Block, anatomy: Anatomy, grain: Floats, cloud: Floats) -> _Ground:
    """Return stroma, glands and glass, without nuclei and look-alikes."""
    fibres = anatomy.fibres()
    eosin = 0.40 + 0.20 * fibres + 0.06 * cloud + 0.04 * grain
    blue = 0.07 + 0.05 * cloud + 0.04 * fibres + 0.03 * grain
    # Blue stroma, as dark as a pale nucleus.
    blue += 0.36 * np.clip(2.0 * block.noise(17, 300) - 0.15 + 0.25 * fibres, 0, 1)
    # Clefts: where fibres part, the glass shows.
    gap = np.clip((-fibres - 0.30 + 0.5 * block.noise(18, 210)) * 3.0, 0, 0.9)

    glands = anatomy.glands
    warped_y, warped_x = anatomy.warped_pixels()
    for each in range(glands.y.size):
        depth = glands.depth(each, warped_y, warped_x)
        if depth.max() < -6:
            continue
        inside = np.clip(depth + 0.5, 0, 1)
        membrane = np.exp(-(((depth + 1.5) / 2.2) ** 2))
        lumen = np.clip((depth - np.float32(glands.wall(each)) + 4 * cloud) / 2.5, 0, 1)
        inwards = np.clip(depth / np.float32(EPITHELIUM_PX), 0, 1)
        vessel = bool(glands.vessel[each])
        wall_eosin = (0.62 if vessel else 0.30 + 0.14 * inwards) + 0.06 * cloud + 0.05 * grain
        wall_blue = (0.10 if vessel else 0.46 - 0.26 * inwards) + 0.04 * cloud + 0.06 * grain
        eosin = eosin * (1 - inside) + wall_eosin * inside + 0.22 * membrane
        blue = blue * (1 - inside) + wall_blue * inside + 0.05 * membrane
        gap = np.maximum(gap * (1 - inside), 0.97 * lumen)

    gap = np.maximum(gap, np.clip((anatomy.glass() + 0.02 * cloud) * 60, 0, 1))
    return _Ground(eosin * (1 - gap), blue * (1 - gap), gap)
