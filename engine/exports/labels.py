"""What an export needs to know of a mask."""

from dataclasses import dataclass
from typing import Any

import zarr

from ..downsampling import downsampling
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
        """Read the levels and the pixel size from the mask's own OME-Zarr attributes."""
        group, plan = prediction.group, prediction.plan
        ome: Any = group.attrs["ome"]
        multiscale = ome["multiscales"][0]
        unit = micrometers_per(multiscale["axes"][0].get("unit", ""))
        finest = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
        height, width = plan.image.levels[0].shape
        return cls(
            name=plan.image.name,
            levels=tuple(_array(group, entry["path"]) for entry in multiscale["datasets"]),
            class_names=plan.class_names,
            not_computed=plan.recipe.not_computed,
            pixel_micrometers=None if unit is None else (finest[0] * unit, finest[1] * unit),
            factor=(downsampling(height, plan.shape[0]), downsampling(width, plan.shape[1])),
        )


def _array(group: zarr.Group, path: str) -> ZarrArray:
    array = group[path]
    assert isinstance(array, zarr.Array)
    return array
