"""A network that returns its input: what it is given can be read from its logits."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_returning_network(path: Path, channels: int) -> Path:
    """Write an ONNX file that takes any size and returns its ``channels`` channels unchanged."""
    shape = ["n", channels, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["logits"])],
        "returning",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
