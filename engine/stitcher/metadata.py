"""Attributes of a mask: OME-Zarr 0.5 multiscales, and where the mask comes from."""

from importlib.metadata import version
from typing import Any

from ..plan import Plan
from ..sources.georeference import scaled


def group_attributes(plan: Plan, levels: int) -> dict[str, Any]:
    """Return the attributes of the mask's group.

    No date, host or path is among them, so that the same plan gives the same attributes.
    """
    return {
        "ome": {"version": "0.5", "multiscales": [_multiscale(plan, levels)]},
        "tile_infer": {
            "version": version("tile-infer"),
            "plan": plan.fingerprint,
            "exact": plan.exact,
            "classes": list(plan.class_names),
            **_colours(plan),
            "not_computed": plan.recipe.not_computed,
            "network": {"name": plan.network.name, "sha256": plan.network.sha256},
            "image": {
                "name": plan.image.name,
                "identity": plan.image.identity,
                "level": plan.level,
                "channels": list(plan.channels),
            },
            "normalize": plan.normalize,
            "precision": plan.execution.precision,
            "backend": plan.execution.backend,
            **_georeference(plan),
        },
    }


def _colours(plan: Plan) -> dict[str, Any]:
    """Return red, green and blue of each label, where the model says them."""
    colours = plan.network.class_colours
    return {"colours": [list(colour) for colour in colours]} if colours else {}


def _georeference(plan: Plan) -> dict[str, Any]:
    """Return where the mask's level 0 lies, for an image that says."""
    place = plan.image.georeference
    if place is None:
        return {}
    transform = None
    if place.transform is not None:
        transform = list(scaled(place.transform, plan.level0_pixels))
    return {"georeference": {"crs": place.crs, "transform": transform}}


def _multiscale(plan: Plan, levels: int) -> dict[str, Any]:
    pixel = plan.pixel_size
    unit = {"unit": plan.image.unit} if pixel and plan.image.unit else {}
    # Without a length, a unit is a pixel of the image's level 0.
    sizes = list(zip(pixel or plan.level0_pixels, plan.level0_pixels, strict=True))
    datasets = []
    for level in range(levels):
        factor = 1 << level
        # Level 0 of the image has its first pixel's centre at 0, and corners lie on corners.
        shifts = [(size * factor - size / covered) / 2 for size, covered in sizes]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [size * factor for size, _ in sizes]},
                    {"type": "translation", "translation": shifts},
                ],
            }
        )
    return {
        "name": plan.image.name,
        "axes": [{"name": name, "type": "space", **unit} for name in ("y", "x")],
        "datasets": datasets,
        "type": "mode",
    }
