"""Finished masks of chosen labels, and readers of the exports that share no code with them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from torch import nn
from zarr.storage import MemoryStore

from tile_infer import plan_prediction
from tile_infer.engine.prediction import Prediction
from tile_infer.engine.sources.base import Level
from tile_infer.engine.sources.georeference import Georeference
from tile_infer.engine.stitcher.metadata import group_attributes
from tile_infer.engine.stitcher.pyramid import build_level, level_shapes
from tile_infer.tiler.axis import AxisGrid
from tile_infer.tiler.grid import Grid
from tile_infer.tiler.scale import Scale

Labels = NDArray[np.generic]
Ring = list[tuple[float, float]]

PLAN = plan_prediction(np.zeros((64, 64), np.uint8), nn.Conv2d(1, 3, 3), workers=1)


def finished(
    labels: Labels,
    chunk: int = 256,
    *,
    image_levels: tuple[Level, ...] | None = None,
    unit: str | None = None,
    names: Sequence[str] | None = None,
    georeference: Georeference | None = None,
) -> Prediction:
    """Return a prediction whose mask is ``labels``; the last of the image's levels was read."""
    image_levels = image_levels or (Level((labels.shape[0], labels.shape[1])),)
    classes = 3 if names is None else len(names)
    dtype = labels.dtype.name
    lengths = image_levels[-1].shape
    scale = _scale(lengths[0], labels.shape[0])
    tile = scale.image_px(chunk) + 2
    grid = Grid(*(AxisGrid(n, tile, 1, chunk, chunk, chunk, chunk, scale) for n in lengths))
    assert grid.shape == labels.shape
    plan = replace(
        PLAN,
        grid=grid,
        level=len(image_levels) - 1,
        image=replace(
            PLAN.image,
            name="a & b.tif",
            levels=image_levels,
            unit=unit,
            georeference=georeference,
        ),
        recipe=replace(PLAN.recipe, classes=254 if dtype == "uint8" else 300),
        class_names=tuple(names or (f"class {label}" for label in range(classes))),
    )
    shapes = level_shapes(grid.shape)
    group = zarr.open_group(MemoryStore(), mode="w")
    group.attrs.update(group_attributes(plan, len(shapes)))
    levels = [
        group.create_array(
            str(number),
            shape=shape,
            chunks=(chunk, chunk),
            dtype=dtype,
            config={"write_empty_chunks": True},
        )
        for number, shape in enumerate(shapes)
    ]
    levels[0][:] = labels
    for finer, coarser in pairwise(levels):
        build_level(finer, coarser)
    return Prediction(levels[0], group, plan, {})


def _scale(image_px: int, mask_px: int) -> Scale:
    if mask_px >= image_px:
        return Scale(up=mask_px // image_px)
    return Scale(down=round(image_px / mask_px))


def read_features(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text())
    assert found["type"] == "FeatureCollection"
    features: list[dict[str, Any]] = found["features"]
    return features


def filled(rings: list[Ring], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels whose centre has an odd number of upright sides to its left."""
    crossed = np.zeros((shape[0], shape[1] + 1), np.int64)
    for ring in rings:
        assert ring[0] == ring[-1]
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:
                crossed[int(min(y0, y1)) : int(max(y0, y1)), int(x0)] += 1
    inside: NDArray[np.bool_] = np.cumsum(crossed, axis=1)[:, : shape[1]] % 2 == 1
    return inside


def flooded(labels: Labels) -> list[NDArray[np.bool_]]:
    """Return the regions that are connected by sides, of each label but 0 and 255."""
    left = ~np.isin(labels, (0, 255))
    regions = []
    for start in zip(*np.nonzero(left), strict=True):
        if not left[start]:
            continue
        region, edge = np.zeros(labels.shape, np.bool_), [start]
        while edge:
            y, x = edge.pop()
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and left[y, x] and labels[y, x] == labels[start]:
                left[y, x], region[y, x] = False, True
                edge += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        regions.append(region)
    return regions
