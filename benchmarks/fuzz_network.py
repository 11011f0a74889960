"""Damage a network's file: its bytes, or what its parts say, through protobuf."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

Rng = np.random.Generator

_NUMBERS: tuple[int, ...] = (
    *(0, 1, -1, 2, 3, 7, -7, 64, 255, 1000, 65536),
    *(1 << 20, 1 << 31, (1 << 31) - 1, -(1 << 31), 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63)),
)
_KINDS = "Conv ConvTranspose MaxPool Relu Concat Resize Reshape Expand Tile Loop If Scan Gather "
_KINDS += "Slice Split Softmax ArgMax NonZero TopK Transpose Pad MatMul Gemm Identity Shape Range "
_KINDS += "ConstantOfShape OneHot Upsample Unsqueeze Squeeze Einsum LSTM QLinearConv Nonsense"
KINDS = tuple(_KINDS.split())
_PLACES = ("../../etc/passwd", "/etc/passwd", "/dev/zero", "", ".", "nowhere.bin", "a" * 5000)


def _one(rng: Rng, options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _bytes(data: bytearray, rng: Rng) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 32)):
        data[place] = int(rng.integers(256))


def _bits(data: bytearray, rng: Rng) -> None:
    for place in rng.integers(0, len(data), rng.integers(1, 8)):
        data[place] ^= 1 << int(rng.integers(8))


def _cut(data: bytearray, rng: Rng) -> None:
    del data[int(rng.integers(0, len(data))) :]


def _attribute(model: Any, rng: Rng) -> None:
    found = [entry for node in model.graph.node for entry in node.attribute]
    if not found:
        return _kind(model, rng)
    entry = _one(rng, found)
    if entry.type == AttributeProto.INTS and entry.ints:
        if rng.integers(4) == 0:
            entry.ints.extend(entry.ints)
        else:
            entry.ints[int(rng.integers(len(entry.ints)))] = _one(rng, _NUMBERS)
    elif entry.type == AttributeProto.INT:
        entry.i = _one(rng, _NUMBERS)
    elif entry.type == AttributeProto.STRING:
        entry.s = _one(rng, (b"", b"linear", b"cubic", b"\xff\xfe", b"nearest", b"x" * 10_000))
    elif entry.type == AttributeProto.FLOAT:
        entry.f = _one(rng, (0.0, -1.0, float("nan"), float("inf"), 1e38))
    else:
        entry.name = "nonsense"
    if rng.integers(8) == 0:
        entry.type = int(rng.integers(15))
    return None


def _no_attribute(model: Any, rng: Rng) -> None:
    node = _one(rng, [n for n in model.graph.node if n.attribute] or model.graph.node)
    del node.attribute[:]


def _dims(model: Any, rng: Rng) -> None:
    weight = _one(rng, model.graph.initializer)
    if weight.dims and rng.integers(4):
        weight.dims[int(rng.integers(len(weight.dims)))] = _one(rng, _NUMBERS)
    else:
        weight.dims.append(_one(rng, _NUMBERS))


def _values(model: Any, rng: Rng) -> None:
    """Change numbers inside a constant: weights, or the shapes and scales that it holds."""
    small = [w for w in model.graph.initializer if w.data_type == TensorProto.INT64]
    weight = _one(rng, small if small and rng.integers(2) else model.graph.initializer)
    if weight.data_type == TensorProto.INT64 and len(weight.raw_data) >= 8:
        numbers = np.frombuffer(weight.raw_data, np.int64).copy()
        numbers[int(rng.integers(len(numbers)))] = _one(rng, _NUMBERS)
        weight.raw_data = numbers.tobytes()
    elif weight.data_type == TensorProto.FLOAT and len(weight.raw_data) >= 4:
        floats = np.frombuffer(weight.raw_data, np.float32).copy()
        odd = (0.0, -1.0, np.nan, np.inf, 1e30, 1e-30, 1000.0, 0.001)
        floats[int(rng.integers(len(floats)))] = _one(rng, odd)
        weight.raw_data = floats.tobytes()
    else:
        weight.raw_data = weight.raw_data[: len(weight.raw_data) // 2]


def _weight_type(model: Any, rng: Rng) -> None:
    _one(rng, model.graph.initializer).data_type = int(rng.integers(30))


def _less_data(model: Any, rng: Rng) -> None:
    weight = _one(rng, model.graph.initializer)
    weight.raw_data = weight.raw_data[: int(rng.integers(len(weight.raw_data) + 1))]


def _wire(model: Any, rng: Rng) -> None:
    """Let a node take another tensor, one that is not there, or its own output; or lose it."""
    node = _one(rng, model.graph.node)
    names = [name for n in model.graph.node for name in n.output] + ["image", "nowhere", ""]
    choice = int(rng.integers(4))
    if choice == 0 and node.input:
        del node.input[-1]
    elif choice == 1:
        node.input.append(_one(rng, names))
    elif choice == 2 and node.output:
        node.output[0] = _one(rng, names)
    elif node.input:
        node.input[int(rng.integers(len(node.input)))] = _one(rng, names)


def _kind(model: Any, rng: Rng) -> None:
    _one(rng, model.graph.node).op_type = _one(rng, KINDS)


def _domain(model: Any, rng: Rng) -> None:
    node = _one(rng, model.graph.node)
    node.domain = _one(rng, ("com.microsoft", "ai.onnx.ml", "custom.domain", "x" * 1000))
    if rng.integers(2):
        model.opset_import.append(helper.make_opsetid(node.domain, 1))


def _order(model: Any, rng: Rng) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[i] for i in rng.permutation(len(nodes)))


def _ends(model: Any, rng: Rng) -> None:
    """Change what the graph says of its image and its map, or of how many it has."""
    value = _one(rng, (model.graph.input[0], model.graph.output[0]))
    tensor = value.type.tensor_type
    axes = tensor.shape.dim
    choice = int(rng.integers(7))
    if choice == 0:
        value.name = _one(rng, ("", "nowhere", "image"))
    elif choice == 1:
        tensor.elem_type = int(rng.integers(30))
    elif choice == 2:
        tensor.ClearField("shape")
    elif choice == 3 and axes:
        del axes[-1]
    elif choice == 4:
        axes.add().dim_value = _one(rng, _NUMBERS)
    elif choice == 5:
        del (model.graph.input if rng.integers(2) else model.graph.output)[:]
    elif axes:
        axes[int(rng.integers(len(axes)))].dim_value = _one(rng, _NUMBERS)


def _version(model: Any, rng: Rng) -> None:
    versions = (0, -1, 1, 5, 6, 8, 10, 12, 18, 25, 1000, 1 << 40)
    if rng.integers(3) == 0:
        model.ir_version = _one(rng, versions)
    elif rng.integers(4) == 0:
        del model.opset_import[:]
    else:
        model.opset_import[0].version = _one(rng, versions)


def _outside(model: Any, rng: Rng) -> None:
    """Let weights lie in another file: one of the system's, none, or beyond its end."""
    weight = _one(rng, model.graph.initializer)
    weight.ClearField("raw_data")
    del weight.external_data[:]
    weight.data_location = TensorProto.EXTERNAL
    said = {"location": _one(rng, _PLACES), "offset": str(_one(rng, _NUMBERS))}
    said |= {"length": str(_one(rng, _NUMBERS))}
    for key, value in said.items():
        if key == "location" or rng.integers(2):
            weight.external_data.add(key=key, value=value)


def _metadata(model: Any, rng: Rng) -> None:
    texts = ("", "{", "[]", '{"classes": 5}', '{"mean": [1e999]}', "null", "[" * 100_000)
    model.metadata_props.add(key="tile_infer", value=_one(rng, texts))


def _nested(model: Any, rng: Rng) -> None:
    """Nest a graph in a graph in a graph, many times."""
    inner = helper.make_graph([], "inner", [], [helper.make_empty_tensor_value_info("x")])
    for _ in range(int(_one(rng, (2, 30, 60)))):
        node = helper.make_node("If", ["yes"], ["x"], then_branch=inner, else_branch=inner)
        again = helper.make_graph([node], "inner", [], inner.output)
        inner = again if again.ByteSize() < 1 << 16 else inner
    node = _one(rng, model.graph.node)
    node.attribute.append(helper.make_attribute("body", inner))


ON_BYTES: dict[str, Callable[[bytearray, Rng], None]] = {
    "bytes": _bytes,
    "bits": _bits,
    "cut": _cut,
}
ON_PARTS: dict[str, Callable[[Any, Rng], None]] = {
    "attribute": _attribute,
    "no attribute": _no_attribute,
    "dims": _dims,
    "values": _values,
    "weight type": _weight_type,
    "less data": _less_data,
    "wire": _wire,
    "operator": _kind,
    "domain": _domain,
    "order": _order,
    "ends": _ends,
    "version": _version,
    "outside": _outside,
    "metadata": _metadata,
    "nested": _nested,
}


def damaged(data: bytes, rng: Rng) -> tuple[bytes, str]:
    """Return a network's file damaged in one way, or sometimes in two, and in which."""
    names = [*ON_BYTES, *ON_PARTS, "attribute", "values"]
    first = names[int(rng.integers(len(names)))]
    if first in ON_BYTES:
        changed = bytearray(data)
        ON_BYTES[first](changed, rng)
        return bytes(changed), first
    model = onnx.ModelProto.FromString(data)
    ON_PARTS[first](model, rng)
    if rng.integers(4) == 0:
        ON_PARTS[names[int(rng.integers(len(ON_BYTES), len(names)))]](model, rng)
    return bytes(model.SerializeToString()), first
