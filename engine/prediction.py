"""What `predict_large` returns, and the report of a run."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray

from .backends.device import device_text
from .memory import peak_rss_bytes
from .plan import Plan, network_summary
from .stages import Stage
from .stitcher.records import Records
from .stitcher.store import ZarrArray
from .stitcher.unread_places import all_places
from .unread import Unread

if TYPE_CHECKING:
    from .exports.colours import Colours
    from .exports.geojson import ObjectType


@dataclass(frozen=True, slots=True)
class Prediction:
    """A finished mask.

    ``np.asarray(prediction)`` gives the labels as an array in memory.
    """

    mask: ZarrArray
    """Labels ``(y, x)``, level 0; ``uint8``, or ``uint16`` for more than 255 classes."""
    group: zarr.Group
    """The OME-Zarr group that holds the mask and its lower resolutions."""
    plan: Plan
    """How it was made."""
    report: dict[str, Any]
    """Figures of the run, the network and the plan, ready for JSON."""

    @property
    def probabilities(self) -> ZarrArray | None:
        """Probabilities ``(class, y, x)`` in ``float16``, where ``output="probabilities"``."""
        return self._scores("probabilities")

    @property
    def logits(self) -> ZarrArray | None:
        """Logits ``(class, y, x)`` in ``float32``, where ``output="logits"``."""
        return self._scores("logits")

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        colours: "Colours | None" = None,
        object_type: "ObjectType" = "annotation",
    ) -> None:
        """Write the mask for other tools, by the file's ending.

        Args:
            path: ``.ome.tif`` (pyramidal OME-TIFF), ``.tif`` (tiled, with overviews and the image's
                georeference) or ``.geojson`` (polygons in level-0 pixels, for QuPath).
            colours: Red, green and blue, 0 to 255, of the classes: a dict from names, such as
                ``{"tumour": (200, 30, 0)}``, or one for each label, 0 included. Without them, those
                in the model's metadata. Only ``.geojson`` holds colours.
            object_type: What QuPath makes of a region: ``"annotation"``, or ``"detection"``, which
                is lighter where there are thousands. Only ``.geojson`` holds it.

        Raises:
            SettingError: The ending is another one, or a colour or class is none.
            OutputError: The file cannot be written.
        """
        from .exports import ExportOptions, export

        export(self, Path(path), ExportOptions(colours=colours, object_type=object_type))

    def __repr__(self) -> str:
        height, width = self.plan.shape
        kind = "exact" if self.plan.exact else "not exact"
        return f"<Prediction {height} x {width} px, {kind}, {self.report['mask']}>"

    def _scores(self, name: str) -> ZarrArray | None:
        found = self.group.get(name)
        return found if isinstance(found, zarr.Array) else None

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[np.generic]:
        if copy is False:
            raise ValueError("a mask is stored in chunks: an array of it is always a copy")
        return np.asarray(self.mask[:], dtype=dtype)


def build_report(
    plan: Plan,
    place: str,
    records: Records,
    unread: Iterable[Unread],
    changed: list[dict[str, Any]],
    seconds: float,
    blocks_run: int,
    stages: Mapping[Stage, float],
    counts: Mapping[str, Any],
    certificate: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the report, from the plan and the stored records but for what this run spent and did.

    Args:
        plan: The plan.
        place: Where the mask is.
        records: Those there are.
        unread: What could not be decoded of the image, for each block that lacks something.
        changed: What blocks were run with where memory ran out, and which.
        seconds: Time this run took.
        blocks_run: Blocks that this run computed; the others were there before.
        stages: Seconds that this run spent in each stage, summed over its threads.
        counts: What this run did, to be checked against the plan.
        certificate: What came of computing parts of the mask again.

    Returns:
        The figures. Shares of classes are of the pixels that have one, that of nodata is of all.
    """
    total, broken, unread = records.total(), records.not_computed(), list(unread)
    lost = sum(each.pixels for each in unread)
    grid = plan.grid
    pixels = grid.shape[0] * grid.shape[1]
    pixel = plan.pixel_size
    area = pixel[0] * pixel[1] if pixel else None
    if area is not None and not isfinite(area * pixels):
        area = None  # of a size that nothing has, and JSON has no infinity
    share_run = blocks_run / grid.blocks
    return {
        "mask": place,
        "shape": list(grid.shape),
        "seconds": round(seconds, 3),
        "megapixels_per_second": round(pixels * share_run / 1e6 / seconds, 3) if seconds else None,
        "device": device_text(plan.devices),
        "precision": plan.execution.precision,
        "backend": plan.execution.backend,
        "peak_rss_bytes": peak_rss_bytes(),
        "blocks_run": blocks_run,
        "stages": {stage: round(spent, 4) for stage, spent in stages.items()},
        "counts": dict(counts),
        "classes": [
            {
                "label": label,
                "name": name,
                "pixels": count,
                "share": round(count / max(1, sum(total.pixels)), 6),
                "area": None if area is None else count * area,
            }
            for label, (name, count) in enumerate(zip(plan.class_names, total.pixels, strict=True))
        ],
        "nodata": {
            "pixels": total.filled - lost,
            "share": round((total.filled - lost) / pixels, 6),
        },
        "unread": {"pixels": lost, "level": plan.level, "places": all_places(unread)},
        "not_finite": {
            "pixels": total.not_computed,
            "blocks": [{"block": block, "pixels": count} for block, count in broken.items()],
        },
        "changed": changed,
        "area_unit": f"{plan.image.unit} squared" if area and plan.image.unit else None,
        "certificate": None if certificate is None else dict(certificate),
        "network": network_summary(plan.network, plan.probe),
        "plan": plan.summary(),
    }
