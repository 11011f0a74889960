"""Find a sigmoid, softmax or argmax at the end of an ONNX graph, and leave it out."""

import onnx

from .base import Ending
from .onnx_axes import NEW, backward
from .onnx_chain import Chain, attribute, small_constants
from .onnx_layout import STANDARD, to_standard

_LAYOUT = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Slice", "Gather"}
"""Operators that move values without changing them: an activation may come before them."""

_LEFT_OUT = {"Clip", "Cast"}
"""Operators that are for probabilities."""

_KEEPS_CLASSES = {"Identity", "Cast", "Clip", "Transpose", "Squeeze", "Unsqueeze"}
"""Operators that certainly leave the classes beside each other."""

LOGITS = "tile_infer/before_argmax"


def bypass_ending(model: onnx.ModelProto, output: str) -> tuple[str, Ending]:
    """Change the graph so that it ends in logits.

    An argmax is cut off together with what follows it, for that works on labels. A sigmoid or
    softmax is bypassed; a transposition behind it stays, a clip or cast does not. Behind a sigmoid,
    which looks at one value, a crop or a choice of classes stays too; behind a softmax they would
    change its meaning, and it is left as it is.

    Args:
        model: Changed in place.
        output: Name of the output, ``(batch, class, y, x)``.

    Returns:
        The name of the tensor that now holds the logits, ``(batch, class, y, x)``, and what was
        found.
    """
    constants = small_constants(model)
    producers = {name: node for node in model.graph.node for name in node.output}
    tensor, axes = output, STANDARD  # no letters where the axes are unknown
    before_argmax: tuple[str, str] | None = None
    behind: list[onnx.NodeProto] = []  # what follows, from the output backwards
    while tensor in producers:
        node = producers[tensor]
        kind = node.op_type
        if kind == "ArgMax" and before_argmax is None:
            axes = _axes_of_logits(node, axes)
            if not axes:
                break
            before_argmax, behind = (node.input[0], axes), []
        elif kind == "Sigmoid" or (
            kind in ("Softmax", "LogSoftmax")
            and "c" in axes
            and attribute(node, "axis", -1) % len(axes) == axes.index("c")
            and all(follower.op_type in _KEEPS_CLASSES for follower in behind)
        ):
            logits = _without(node, behind)
            if before_argmax:
                logits = _standard(model, logits, before_argmax[1])
            return logits, "sigmoid" if kind == "Sigmoid" else "softmax"
        elif kind == "Clip" or kind in _LAYOUT:
            behind.append(node)
            axes = _named(backward(node, axes, constants) or "")
        else:
            break
        tensor = node.input[0]
    if before_argmax:
        return _standard(model, *before_argmax), "argmax"
    return output, "none"


def _axes_of_logits(node: onnx.NodeProto, axes: str) -> str:
    """Return the axes of what an argmax is given; nothing where it is not over the classes."""
    axis, kept = attribute(node, "axis", 0), attribute(node, "keepdims", 1)
    if not axes:  # behind a reshaping
        return {1: STANDARD, -3: STANDARD, 3: "byxc", -1: "byxc"}.get(axis, "")
    if kept:
        return axes if "c" in axes and axis % len(axes) == axes.index("c") else ""
    if "c" in axes:
        return ""
    place = axis % (len(axes) + 1)
    return axes[:place] + "c" + axes[place:]


def _named(axes: str) -> str:
    """Return axes with a letter for those that were taken away: classes before the batch."""
    missing = [axis for axis in "cb" if axis not in axes][: axes.count(NEW)]
    for axis in sorted(missing):
        axes = axes.replace(NEW, axis, 1)
    return axes


def _without(node: onnx.NodeProto, behind: list[onnx.NodeProto]) -> str:
    """Bypass an activation; return what the graph ends in without it."""
    tensor: str = node.input[0]
    for follower in reversed(behind):
        if follower.op_type not in _LEFT_OUT:
            follower.input[0] = tensor
            tensor = follower.output[0]
    return tensor


def _standard(model: onnx.ModelProto, tensor: str, axes: str) -> str:
    """Return the name of a tensor with all axes in the standard order."""
    if axes == STANDARD:
        return tensor
    chain = Chain(model, "before_argmax")
    result = to_standard(chain, tensor, axes, LOGITS)
    model.graph.node.extend(chain.nodes)
    return result
