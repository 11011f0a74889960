"""What an export needs to know of a mask."""

from dataclasses import dataclass
from typing import Any

import zarr

from ..plan import Plan
from ..prediction import Prediction
from ..sources.lengths import micrometers_per
from ..stitcher.store import ZarrArray


@dataclass(frozen=True, slots=True)
class Labels:
    """A mask as it is stored, and what its numbers mean."""

    name: str
    """Name of the image."""
    levels: tuple[ZarrArray, ...]
    """Resolutions ``(y, x)``, level 0 first."""
    class_names: tuple[str, ...]
    """Name of each label."""
    not_computed: int
    """Label of the pixels that the network has no value for."""
    pixel_micrometers: tuple[float, float] | None
    """Height and width of a pixel; ``None`` where the image does not state a length."""
    factor: tuple[float, float]
    """Height and width of a pixel in pixels of the image's level 0; ``int`` where it is whole."""

    @classmethod
    def of(cls, prediction: Prediction) -> "Labels":
        """Read which levels there are from the mask's own OME-Zarr attributes."""
        group, plan = prediction.group, prediction.plan
        ome: Any = group.attrs["ome"]
        size, unit = plan.pixel_size, micrometers_per(plan.image.unit or "")
        return cls(
            name=plan.image.name,
            levels=tuple(
                _array(group, entry["path"]) for entry in ome["multiscales"][0]["datasets"]
            ),
            class_names=plan.class_names,
            not_computed=plan.recipe.not_computed,
            pixel_micrometers=(size[0] * unit, size[1] * unit) if size and unit else None,
            factor=_level0_pixels(plan),
        )


def downsampling(long: int, short: int) -> float:
    """Return how many pixels of ``long`` one of ``short`` covers; levels round their own size.

    >>> downsampling(2967, 741), downsampling(2967, 742), downsampling(100, 200)
    (4, 4, 0.5)
    """
    whole = round(long / short)
    return whole if whole and abs(long - whole * short) < whole else long / short


def _level0_pixels(plan: Plan) -> tuple[float, float]:
    """Return the size of a pixel of the mask, which may be finer or coarser than its level."""
    level0, level = plan.image.levels[0].shape, plan.image.levels[plan.level].shape
    scale = plan.grid.scale
    y, x = (
        downsampling(long, short) * scale.down for long, short in zip(level0, level, strict=True)
    )
    return (y, x) if scale.up == 1 else (y / scale.up, x / scale.up)


def _array(group: zarr.Group, path: str) -> ZarrArray:
    array = group[path]
    assert isinstance(array, zarr.Array)
    return array
