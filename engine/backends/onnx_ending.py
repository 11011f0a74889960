"""Find a sigmoid, softmax or argmax at the end of an ONNX graph, and leave it out."""

from typing import Any

import onnx
from onnx import helper

from .base import Ending

_LAYOUT = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Slice", "Gather"}
"""Operators that move values without changing them: an activation may come before them."""


_LEFT_OUT = {"Clip", "Cast", "Squeeze", "Unsqueeze"}
"""Operators that are for probabilities, or for a map without a class axis."""


def bypass_ending(model: onnx.ModelProto, output: str) -> tuple[str, Ending]:
    """Change the graph so that it ends in logits.

    An argmax is cut off together with what follows it, for that works on labels. A sigmoid or
    softmax is bypassed; a transposition or a crop behind it stays, a clip or cast does not.

    Args:
        model: Changed in place.
        output: Name of the output, ``(batch, class, y, x)``, or without ``class`` after an argmax.

    Returns:
        The name of the tensor that now holds the logits, and what was found.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    logits, ending = output, "none"
    tensor, class_axis = output, 1
    behind: list[onnx.NodeProto] = []  # what follows, from the output backwards
    while tensor in producers:
        node = producers[tensor]
        tensor = node.input[0]
        if node.op_type == "ArgMax" and ending == "none":
            if _attribute(node, "axis", 0) % 4 != 1:
                break
            logits, ending, class_axis, behind = tensor, "argmax", 1, []
        elif node.op_type == "Sigmoid" or (
            node.op_type in ("Softmax", "LogSoftmax")
            and _attribute(node, "axis", -1) % 4 == class_axis
        ):
            for follower in reversed(behind):
                if follower.op_type not in _LEFT_OUT:
                    follower.input[0] = tensor
                    tensor = follower.output[0]
            return tensor, "sigmoid" if node.op_type == "Sigmoid" else "softmax"
        elif node.op_type == "Clip" or node.op_type in _LAYOUT:
            behind.append(node)
            if node.op_type == "Transpose":
                class_axis = _attribute(node, "perm", [3, 2, 1, 0])[class_axis]
        else:
            break
    return logits, "argmax" if ending == "argmax" else "none"


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
