"""Find which axis of an ONNX graph's image and map is which."""

import numpy as np
import onnx

from .onnx_axes import JOINS, NEW, backward, forward
from .onnx_chain import Chain, constant_names, small_constants

STANDARD = "bcyx"
"""Batch, channel or class, row, column: what the engine gives and takes."""

Dimension = int | str | None
"""Length of an axis, or its name where it is free, ``None`` where it has none."""

_PLANAR_NAMES = (
    "Conv ConvTranspose ConvInteger QLinearConv BatchNormalization InstanceNormalization "
    "GroupNormalization AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool LRN "
    "DepthToSpace SpaceToDepth DeformConv GridSample"
)
_PLANAR = frozenset(_PLANAR_NAMES.split())
"""Operators for which ONNX defines the order of the axes: ``STANDARD``."""

_COLOURS = 4
"""An axis no longer than this is one of channels, where the others are longer."""


def dimensions(value: onnx.ValueInfoProto) -> list[Dimension]:
    """Return the lengths of a tensor's axes as the file states them."""
    axes = value.type.tensor_type.shape.dim
    # Some exporters write 0 or -1 for an axis of any length.
    return [axis.dim_value if axis.dim_value > 0 else axis.dim_param or None for axis in axes]


def image_axes(model: onnx.ModelProto, image: onnx.ValueInfoProto) -> str | None:
    """Return a letter of ``bcyx`` for each axis of the image input, ``None`` where unsure.

    The operators tell: an image that a convolution is given is planar. Where they work on each
    value alone, the lengths have to.
    """
    sizes = dimensions(image)
    return _read_by_operators(model, image.name, len(sizes)) or _image_by_lengths(sizes)


def map_axes(
    model: onnx.ModelProto,
    output: onnx.ValueInfoProto,
    image: onnx.ValueInfoProto,
    image_letters: str,
) -> str | None:
    """Return a letter of ``bcyx`` for each axis of an output, ``None`` where unsure.

    Args:
        model: The graph.
        output: The output; of its axes ``b`` or ``c`` may be missing.
        image: The image input.
        image_letters: Letters of the image's axes.
    """
    sizes = dimensions(output)
    found = _made_by_operators(model, output.name, len(sizes), image.name, image_letters)
    known = dict(zip(image_letters, dimensions(image), strict=True))
    fits = _fitting(sizes, known)
    # A matrix product may mix places instead of channels: then the lengths know better.
    if found is None or (fits and _spatial(sizes, found) != (known["y"], known["x"])):
        return _map_by_lengths(sizes, known)
    return found


def to_standard(chain: Chain, tensor: str, letters: str, output: str) -> str:
    """Append nodes that give a tensor all axes, in the standard order; return its name."""
    planar = letters == "".join(axis for axis in STANDARD if axis in letters)
    order = STANDARD if planar else "".join(a for a in STANDARD if a not in letters) + letters
    new = [place for place, axis in enumerate(order) if axis not in letters]
    if new:
        named = chain.constant(new, np.int64)
        tensor = chain.add("Unsqueeze", tensor, named, output=None if not planar else output)
    if not planar:
        order_back = [order.index(axis) for axis in STANDARD]
        tensor = chain.add("Transpose", tensor, output=output, perm=order_back)
    return tensor


def from_standard(chain: Chain, tensor: str, letters: str, output: str) -> None:
    """Append nodes that give a tensor of all axes, in the standard order, those of ``letters``."""
    left_out = [axis for axis in STANDARD if axis not in letters]
    order = "".join(left_out) + letters
    perm = [STANDARD.index(axis) for axis in order]
    target = None if left_out else output
    tensor = chain.add("Transpose", tensor, output=target, perm=perm)
    if left_out:
        places = chain.constant(range(len(left_out)), np.int64)
        chain.add("Squeeze", tensor, places, output=output)


def _letters(followed: str, meaning: str, rank: int) -> str | None:
    """Return the letter of each axis that was followed to where the meaning is known.

    Args:
        followed: Digits of the axes that were followed, and ``NEW`` ones.
        meaning: Letters at that place.
        rank: Number of axes that were followed.
    """
    if len(followed) != len(meaning):
        return None
    found = {axis: letter for axis, letter in zip(followed, meaning, strict=True) if axis != NEW}
    left = [letter for letter in "c" if letter not in found.values()]
    for axis in map(str, range(rank)):
        if axis not in found:  # an axis of length 1 that was added
            if not left:
                return None
            found[axis] = left.pop()
    return "".join(found[axis] for axis in map(str, range(rank)))


def _meaning(node: onnx.NodeProto, tensor: str, rank: int, fixed: set[str]) -> str | None:
    """Return the letters of a tensor that a node is given, or makes, where it defines them."""
    if node.op_type in _PLANAR and tensor in (node.input[0], node.output[0]) and rank == 4:
        return STANDARD
    if node.op_type == "MatMul" and node.input[1] in fixed and rank == 4:
        return "byxc"  # a matrix product is taken over the last axis
    return None


def _read_by_operators(model: onnx.ModelProto, image: str, rank: int) -> str | None:
    constants, fixed = small_constants(model), constant_names(model)
    followed = {image: "".join(map(str, range(rank)))}
    for node in model.graph.node:  # in topological order
        for place, tensor in enumerate(node.input):
            axes = followed.get(tensor)
            if axes is None or (place and node.op_type not in JOINS):
                continue
            meaning = _meaning(node, tensor, len(axes), fixed)
            if meaning is not None:
                return _letters(axes, meaning, rank)
            result = forward(node, axes, constants)
            for name in node.output if result else ():
                followed.setdefault(name, result or "")
    return None


def _made_by_operators(
    model: onnx.ModelProto, output: str, rank: int, image: str, image_letters: str
) -> str | None:
    constants, fixed = small_constants(model), constant_names(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    waiting = [(output, "".join(map(str, range(rank))))]
    seen: set[str] = set()
    while waiting:
        tensor, axes = waiting.pop()
        node = producers.get(tensor)
        meaning = image_letters if tensor == image else None
        if node is not None:
            meaning = _meaning(node, tensor, len(axes), fixed)
        if meaning is not None:
            found = _letters(axes, meaning, rank)
            if found is not None:
                return found
        elif node is not None and tensor not in fixed | seen:
            seen.add(tensor)
            before = backward(node, axes, constants)
            inputs = node.input if node.op_type in JOINS else node.input[:1]
            waiting.extend((name, before) for name in reversed(inputs) if before)
    return None


def _image_by_lengths(sizes: list[Dimension]) -> str | None:
    if len(sizes) == 2:
        return "yx"
    if len(sizes) == 3:
        first, _, last = sizes
        if _is_colours(first) and not _is_colours(last):
            return "cyx"
        if _is_colours(last) and not _is_colours(first):
            return "yxc"
        return None if isinstance(first, int) else "byx"
    _, second, third, last = sizes
    if isinstance(second, int) and isinstance(last, int):
        if _is_colours(second) != _is_colours(last):
            return STANDARD if _is_colours(second) else "byxc"
        if (third == last) != (third == second):
            return STANDARD if third == last else "byxc"
        return STANDARD if second == third == last else None
    return "byxc" if isinstance(last, int) and not isinstance(third, int) else STANDARD


def _map_by_lengths(sizes: list[Dimension], image: dict[str, Dimension]) -> str | None:
    """Return the letters of a map by the lengths, and names of lengths, that the image has too."""
    batch = image.get("b", 1)
    like_image = image["y"], image["x"]
    if len(sizes) == 4:
        fits = _fitting(sizes, image)
        if len(fits) == 1:
            return fits[0]
        planar = "".join(image) in (STANDARD, "cyx", "byx", "yx")
        return STANDARD if planar else None
    if len(sizes) == 3:
        first = sizes[0]
        return "cyx" if batch == 1 and isinstance(first, int) and first > 1 else "byx"
    if len(sizes) == 2 and batch == 1:
        fixed = all(isinstance(size, int) and size > 1 for size in sizes)
        return "yx" if fixed or (tuple(sizes) == like_image and None not in sizes) else None
    return None


def _fitting(sizes: list[Dimension], image: dict[str, Dimension]) -> list[str]:
    """Return the letters with which a map of four axes has the height and width of the image."""
    like_image = image["y"], image["x"]
    if len(sizes) != 4 or None in like_image:
        return []
    return [axes for axes in (STANDARD, "byxc") if _spatial(sizes, axes) == like_image]


def _is_colours(size: Dimension) -> bool:
    return isinstance(size, int) and size <= _COLOURS


def _spatial(sizes: list[Dimension], letters: str) -> tuple[Dimension, Dimension]:
    y, x = letters.find("y"), letters.find("x")
    return (sizes[y] if y >= 0 else None), (sizes[x] if x >= 0 else None)
