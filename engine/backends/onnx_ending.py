"""Find a sigmoid, softmax or argmax at the end of an ONNX graph, and leave it out."""

from typing import Any

import onnx
from onnx import helper

from .base import Ending

_LAYOUT = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Slice", "Gather"}
"""Operators that move values without changing them: an activation may come before them."""


_LEFT_OUT = {"Clip", "Cast"}
"""Operators that are for probabilities."""

_KEEPS_CLASSES = {"Identity", "Cast", "Clip", "Transpose"}
"""Operators that certainly leave the classes beside each other."""


def bypass_ending(model: onnx.ModelProto, output: str) -> tuple[str, Ending]:
    """Change the graph so that it ends in logits.

    An argmax is cut off together with what follows it, for that works on labels. A sigmoid or
    softmax is bypassed; a transposition behind it stays, a clip or cast does not. Behind a sigmoid,
    which looks at one value, a crop or a choice of classes stays too; behind a softmax they would
    change its meaning, and it is left as it is.

    Args:
        model: Changed in place.
        output: Name of the output, ``(batch, class, y, x)``, or without ``class`` after an argmax.

    Returns:
        The name of the tensor that now holds the logits, and what was found.
    """
    ranks = {entry.name: len(entry.type.tensor_type.shape.dim) for entry in model.graph.output}
    # A map without class axis: what took the axis away is left out, so that it is there again.
    left_out = _LEFT_OUT | ({"Squeeze"} if ranks.get(output) == 3 else set())
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
            and all(follower.op_type in _KEEPS_CLASSES for follower in behind)
        ):
            for follower in reversed(behind):
                if follower.op_type not in left_out:
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
