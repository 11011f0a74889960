"""Give an ONNX graph the ends that the engine works with, whatever its own look like."""

from pathlib import Path

import onnx
from onnx import helper

from ...tiler.errors import ModelError
from .onnx_chain import Chain
from .onnx_layout import (
    STANDARD,
    Dimension,
    dimensions,
    from_standard,
    image_axes,
    map_axes,
    to_standard,
)

IMAGE = "tile_infer/image"
MAP = "tile_infer/map"

_EXPORT = "export it from (batch, channel, y, x) to (batch, class, y, x)"

Shape = tuple[int | None, int | None, int | None, int | None]
"""``(batch, channel, y, x)``; ``None`` where free."""


def standardise(
    model: onnx.ModelProto, image: onnx.ValueInfoProto, output: onnx.ValueInfoProto, path: Path
) -> tuple[str, str, Shape]:
    """Change a graph to take and give all axes in the standard order.

    Args:
        model: Changed in place, unless it is so already.
        image: Its image input.
        output: The chosen output.
        path: For messages.

    Returns:
        The names of the image and of the map, and the image's shape.

    Raises:
        ModelError: It is not one image or not one map, or nobody can tell which axis is which.
    """
    sizes = dimensions(image)
    letters = image_axes(model, image) if 2 <= len(sizes) <= 4 else None
    if letters is None:
        raise ModelError(
            f"model {path}: input {image.name!r} is {_written(sizes)}, of which nobody can tell "
            f"for sure which axis holds the channels; {_EXPORT}"
        )
    made = _axes_of_map(model, output, image, letters, path)
    known: dict[str, Dimension] = {"b": 1, "c": 1, **dict(zip(letters, sizes, strict=True))}
    if "b" not in made:
        if isinstance(known["b"], int) and known["b"] > 1:
            raise ModelError(
                f"model {path}: output {output.name!r} has no batch axis for {known['b']} tiles; "
                f"{_EXPORT}"
            )
        known["b"] = 1
    shape = (_length(known["b"]), _length(known["c"]), _length(known["y"]), _length(known["x"]))
    return (
        _with_standard_image(model, image, letters, shape),
        _with_standard_map(model, output.name, made),
        shape,
    )


def _axes_of_map(
    model: onnx.ModelProto,
    output: onnx.ValueInfoProto,
    image: onnx.ValueInfoProto,
    letters: str,
    path: Path,
) -> str:
    if not output.type.tensor_type.HasField("shape"):
        return STANDARD  # it has to turn out when it is run
    sizes = dimensions(output)
    made = map_axes(model, output, image, letters) if 2 <= len(sizes) <= 4 else None
    if made is None or not {"y", "x"} <= set(made):
        raise ModelError(
            f"model {path}: output {output.name!r} has {len(sizes)} axes, so it is not a map "
            f"(batch, class, y, x), got {_written(sizes)}; only networks whose output is a map can "
            f"be tiled: {_EXPORT}, or choose another head"
        )
    return made


def _with_standard_image(
    model: onnx.ModelProto, image: onnx.ValueInfoProto, letters: str, shape: Shape
) -> str:
    name: str = image.name
    if letters == STANDARD:
        return name
    chain = Chain(model, "image")
    from_standard(chain, IMAGE, letters, name)
    nodes = [*chain.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    kind = image.type.tensor_type.elem_type
    image.CopyFrom(helper.make_tensor_value_info(IMAGE, kind, shape))
    return IMAGE


def _with_standard_map(model: onnx.ModelProto, output: str, made: str) -> str:
    if made == STANDARD:
        return output
    chain = Chain(model, "map")
    to_standard(chain, output, made, MAP)
    model.graph.node.extend(chain.nodes)
    return MAP


def _length(size: Dimension) -> int | None:
    return size if isinstance(size, int) else None


def _written(sizes: list[Dimension]) -> str:
    return " x ".join("any" if size is None else str(size) for size in sizes) or "one number"
