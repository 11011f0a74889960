"""Write small networks of many kinds, to be damaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 3
"""Of the image that all of them take."""


class _Graph:
    """A graph that grows by one node after the other."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._rng = np.random.default_rng(0)

    def weight(self, *shape: int, scale: float = 0.3) -> str:
        """Add random weights."""
        values = self._rng.normal(0, scale, shape).astype(np.float32)
        return self.constant(values)

    def constant(self, values: Any) -> str:
        """Add a constant."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, tensor: str, inputs: int, outputs: int, size: int = 3, pad: int = 1) -> str:
        """Add a convolution with its ReLU."""
        weight, bias = self.weight(outputs, inputs, size, size), self.weight(outputs)
        pads, kernel = [pad] * 4, [size] * 2
        made = self.add("Conv", tensor, weight, bias, kernel_shape=kernel, pads=pads)
        return self.add("Relu", made)


def _pointwise(graph: _Graph) -> str:
    return graph.conv("image", CHANNELS, 2, 1, 0)


def _same(graph: _Graph) -> str:
    return graph.conv(graph.conv("image", CHANNELS, 4), 4, 2)


def _valid(graph: _Graph) -> str:
    return graph.conv(graph.conv("image", CHANNELS, 4, pad=0), 4, 2, pad=0)


def _unet(graph: _Graph) -> str:
    top = graph.conv("image", CHANNELS, 4)
    low = graph.add("MaxPool", top, kernel_shape=[2, 2], strides=[2, 2])
    low = graph.conv(low, 4, 8)
    up = graph.add(
        "ConvTranspose", low, graph.weight(8, 4, 2, 2), kernel_shape=[2, 2], strides=[2, 2]
    )
    return graph.conv(graph.add("Concat", up, top, axis=1), 8, 2)


def _resized(graph: _Graph) -> str:
    low = graph.add("AveragePool", "image", kernel_shape=[2, 2], strides=[2, 2])
    low = graph.conv(low, CHANNELS, 2)
    scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
    return graph.add("Resize", low, "", scales, mode="nearest")


def _softmax(graph: _Graph) -> str:
    return graph.add("Softmax", _same(graph), axis=1)


def _sigmoid(graph: _Graph) -> str:
    return graph.add("Sigmoid", graph.conv("image", CHANNELS, 1))


def _argmax(graph: _Graph) -> str:
    found = graph.add("ArgMax", _same(graph), axis=1, keepdims=1)
    return graph.add("Cast", found, to=TensorProto.FLOAT)


def _last(graph: _Graph) -> str:
    planar = graph.add("Transpose", "image", perm=[0, 3, 1, 2])
    return graph.add("Transpose", graph.conv(planar, CHANNELS, 2), perm=[0, 2, 3, 1])


def _normalised(graph: _Graph) -> str:
    made = graph.conv("image", CHANNELS, 4)
    made = graph.add("InstanceNormalization", made, graph.weight(4), graph.weight(4))
    made = graph.add("BatchNormalization", made, *(graph.constant(np.ones(4, "f")) for _ in "1234"))
    return graph.conv(made, 4, 2)


def _squeezed(graph: _Graph) -> str:
    made = graph.conv("image", CHANNELS, 4)
    mean = graph.add("GlobalAveragePool", made)
    flat = graph.add("Flatten", mean)
    gate = graph.add("Sigmoid", graph.add("Gemm", flat, graph.weight(4, 4), transB=1))
    wide = graph.add("Reshape", gate, graph.constant(np.array([-1, 4, 1, 1], np.int64)))
    return graph.conv(graph.add("Mul", made, wide), 4, 2)


def _sliced(graph: _Graph) -> str:
    made = graph.add("Pad", "image", graph.constant(np.array([0, 0, 2, 2] * 2, np.int64)))
    made = graph.conv(made, CHANNELS, 2)
    places = [np.array(n, np.int64) for n in ([2, 2], [-2, -2], [2, 3])]
    return graph.add("Slice", made, *(graph.constant(place) for place in places))


def _shaped(graph: _Graph) -> str:
    made = graph.conv("image", CHANNELS, 2)
    shape = graph.add("Shape", "image")
    flat = graph.add("Reshape", made, graph.constant(np.array([0, 2, -1], np.int64)))
    one, two = (graph.constant(np.array(n, np.int64)) for n in ([2], [4]))
    size = graph.add("Slice", shape, one, two, graph.constant(np.array([0], np.int64)))
    head = graph.constant(np.array([1, 2], np.int64))
    return graph.add("Reshape", flat, graph.add("Concat", head, size, axis=0))


def _attention(graph: _Graph) -> str:
    made = graph.add("AveragePool", graph.conv("image", CHANNELS, 4), kernel_shape=[4, 4])
    keys = graph.add("Transpose", made, perm=[0, 1, 3, 2])
    found = graph.add("Softmax", graph.add("MatMul", made, keys), axis=-1)
    return graph.conv(graph.add("MatMul", found, made), 4, 2)


def _branched(graph: _Graph) -> str:
    made = graph.conv("image", CHANNELS, 2)
    then, other = (
        helper.make_graph(
            [helper.make_node(kind, [made], [kind])],
            kind,
            [],
            [helper.make_tensor_value_info(kind, TensorProto.FLOAT, None)],
        )
        for kind in ("Relu", "Neg")
    )
    yes = graph.constant(np.array(True))
    return graph.add("If", yes, then_branch=then, else_branch=other)


def _depth(graph: _Graph) -> str:
    made = graph.add("SpaceToDepth", "image", blocksize=2)
    made = graph.conv(made, 4 * CHANNELS, 8)
    return graph.add("DepthToSpace", made, blocksize=2)


_KINDS: tuple[Callable[[_Graph], str], ...] = (
    _pointwise,
    _same,
    _valid,
    _unet,
    _resized,
    _softmax,
    _sigmoid,
    _argmax,
    _last,
    _normalised,
    _squeezed,
    _sliced,
    _shaped,
    _attention,
    _branched,
    _depth,
)
_FIXED = ("same", "unet", "last")
_OLD = ("same", "softmax", "squeezed")
"""Written of an opset that is converted."""


def write_networks(folder: Path) -> list[Path]:
    """Write one file of each kind; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for build in _KINDS:
        name = build.__name__.removeprefix("_")
        made.append(_write(folder / f"{name}.onnx", build))
        if name in _FIXED:
            made.append(_write(folder / f"{name}_fixed.onnx", build, size_px=64))
        if name in _OLD:
            made.append(_write(folder / f"{name}_old.onnx", build, opset=12))
    made.append(_write(folder / "outside.onnx", _unet, outside=True))
    made.append(_write(folder / "bytes.onnx", _pointwise, of_bytes=True))
    return made


def _write(
    path: Path,
    build: Callable[[_Graph], str],
    *,
    size_px: int | None = None,
    opset: int = 17,
    outside: bool = False,
    of_bytes: bool = False,
) -> Path:
    graph = _Graph()
    logits = build(graph)
    last = build is _last
    sizes: list[int | str] = [size_px or "y", size_px or "x"]
    axes = [1, *sizes, CHANNELS] if last else [1, CHANNELS, *sizes]
    classes: int | str = "classes"
    result = [1, *(size_px or f"{n} out" for n in "yx")]
    result.insert(3 if last else 1, classes)
    kind, nodes = TensorProto.FLOAT, graph.nodes
    if of_bytes:
        kind = TensorProto.UINT8
        nodes[0].input[0] = "floats"
        nodes.insert(0, helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("image", kind, axes)],
            [helper.make_tensor_value_info(logits, TensorProto.FLOAT, result)],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    options: dict[str, Any] = {"location": f"{path.stem}.data", "size_threshold": 0}
    onnx.save_model(model, path, save_as_external_data=outside, **(options if outside else {}))
    return path
