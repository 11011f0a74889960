"""What an export needs to know of a mask."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from ...tiler.errors import OutputError
from ..prediction import Prediction
from ..sources.lengths import micrometers_per
from ..stitcher.store import ZarrArray, place, present_chunks


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
        """Read which levels there are from the mask's own OME-Zarr attributes.

        Raises:
            OutputError: A chunk of the mask is gone.
        """
        group, plan = prediction.group, prediction.plan
        ome: Any = group.attrs["ome"]
        size, unit = plan.pixel_size, micrometers_per(plan.image.unit or "")
        return cls(
            name=plan.image.name,
            levels=tuple(
                _whole_array(group, entry["path"]) for entry in ome["multiscales"][0]["datasets"]
            ),
            class_names=plan.class_names,
            not_computed=plan.recipe.not_computed,
            pixel_micrometers=(size[0] * unit, size[1] * unit) if size and unit else None,
            factor=(_whole(plan.level0_pixels[0]), _whole(plan.level0_pixels[1])),
        )


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _whole_array(group: zarr.Group, path: str) -> ZarrArray:
    array = group[path]
    assert isinstance(array, zarr.Array)
    gone = int(np.count_nonzero(~present_chunks(group.store, array)))
    if gone:
        raise OutputError(
            f"{place(group.store)}: {gone} chunks of level {path} are gone; run again"
        )
    return array
