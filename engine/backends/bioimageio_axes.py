"""The Model Zoo's axes: layout, tile sizes, margin, halo and pixel size."""

from typing import Any

from ...tiler.errors import ModelError
from .declared import DeclaredAxis

_LAYOUTS = (
    ("batch", "channel", "y", "x"),
    ("batch", "y", "x", "channel"),
    ("batch", "y", "x"),
    ("channel", "y", "x"),
    ("y", "x", "channel"),
    ("y", "x"),
)

_MICROMETERS = {
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
}


def check_layout(tensor: Any, file: str) -> None:
    """Refuse a tensor that is no plane with channels.

    Args:
        tensor: Description of the library ``bioimageio.spec``, format 0.5.
        file: Name of the description, for errors.

    Raises:
        ModelError: Its axes are others.
    """
    layout = tuple(str(axis.id) for axis in tensor.axes)
    if layout not in _LAYOUTS:
        raise ModelError(
            f"{file}: {tensor.id} has the axes {', '.join(layout)}; only planes can be tiled, such "
            "as batch, channel, y, x"
        )


def channel_names(tensor: Any) -> tuple[str, ...] | None:
    """Return the names of a tensor's channels; ``None`` without a channel axis."""
    for axis in tensor.axes:
        if axis.type == "channel":
            return tuple(axis.channel_names)
    return None


def declared_axis(source: Any, result: Any, name: str) -> DeclaredAxis:
    """Return what is said of one axis of a network.

    Args:
        source: Description of the input.
        result: Description of the output.
        name: ``y`` or ``x``.
    """
    before, after = _axis(source, name), _axis(result, name)
    size = step = scale = offset = None
    if isinstance(before.size, int):
        size = before.size
    elif hasattr(before.size, "step"):
        size, step = before.size.min, before.size.step
    if _refers_to(after.size, source, name):
        scale, offset = before.scale / after.scale, float(after.size.offset)
    elif isinstance(after.size, int) and size is not None and step is None:
        scale = before.scale / after.scale
        offset = after.size - size * scale
    return DeclaredAxis(size, step, scale, offset, getattr(after, "halo", None))


def pixel_size(source: Any) -> tuple[float, float] | None:
    """Return height and width of the input's pixels in micrometers, where their unit is said."""
    y, x = _axis(source, "y"), _axis(source, "x")
    if y.unit not in _MICROMETERS or x.unit not in _MICROMETERS:
        return None
    return float(y.scale * _MICROMETERS[y.unit]), float(x.scale * _MICROMETERS[x.unit])


def _axis(tensor: Any, name: str) -> Any:
    return next(axis for axis in tensor.axes if axis.id == name)


def _refers_to(size: Any, tensor: Any, name: str) -> bool:
    there = (getattr(size, "tensor_id", None), getattr(size, "axis_id", None))
    return there == (tensor.id, name)
