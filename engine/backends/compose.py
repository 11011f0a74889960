"""Wrap a network's ONNX graph so that raw pixels go in and labels come out."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from .base import Recipe
from .onnx_chain import Chain
from .onnx_graph import GraphFacts

PIXELS = "tile_infer/pixels"
LABELS = "tile_infer/labels"
SCORES = "tile_infer/scores"

UNROLLED_CLASSES = 32
"""Up to so many classes, a running maximum (50 times faster on a CPU) replaces ArgMax."""


def cut_to_logits(facts: GraphFacts) -> onnx.ModelProto:
    """Return the graph ending in float logits instead of labels or probabilities."""
    model = onnx.ModelProto()
    model.CopyFrom(facts.model)
    chain = Chain(model, "end")
    logits = chain.add("Cast", facts.logits, output="tile_infer/logits", to=TensorProto.FLOAT)
    model.graph.node.extend(chain.nodes)
    _set_outputs(model, [(logits, TensorProto.FLOAT, 4)])
    return model


def with_shapes(facts: GraphFacts) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """Return a graph that gives the shapes of each layer's input and output, and the layers."""
    model = onnx.ModelProto()
    model.CopyFrom(facts.model)
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    chain = Chain(model, "shapes")
    wanted = []
    for index, node in enumerate(layers):
        for tensor, end in ((node.input[0], "in"), (node.output[0], "out")):
            shape = chain.add("Shape", tensor, output=f"tile_infer/shape_{index}_{end}")
            wanted.append((shape, TensorProto.INT64, 1))
    model.graph.node.extend(chain.nodes)
    _set_outputs(model, wanted)
    return model, layers


LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Operators whose multiply-adds count as work."""


def compose(facts: GraphFacts, recipe: Recipe) -> onnx.ModelProto:
    """Return the network inside its recipe.

    The graph takes ``(batch, y, x, channel)`` in the image's own type and returns ``LABELS``
    ``(batch, y, x)`` and ``SCORES`` ``(batch, class, y, x)``, as far as they are asked for.
    """
    model = onnx.ModelProto()
    model.CopyFrom(facts.model)
    network = list(model.graph.node)
    before, after = Chain(model, "before"), Chain(model, "after")

    planar = before.add("Transpose", PIXELS, perm=[0, 3, 1, 2])
    if recipe.normalizes:
        # What has more digits than float32 loses them only once it is centred.
        exact = np.dtype(recipe.arithmetic)
        tensor = before.add("Cast", planar, to=helper.np_dtype_to_tensor_dtype(exact))
        per_channel = (1, recipe.channels, 1, 1)
        offset = before.constant(np.reshape(recipe.offset, per_channel), exact)
        scale = before.constant(np.reshape(recipe.scale, per_channel), exact)
        planar = before.add("Mul", before.add("Sub", tensor, offset), scale)
        for kind, limit in zip(("Max", "Min"), recipe.clip, strict=True):
            if limit is not None:
                planar = before.add(kind, planar, before.constant(limit, exact))
    before.add("Cast", planar, output=facts.image, to=facts.image_type)

    logits = after.add("Cast", facts.logits, to=TensorProto.FLOAT)
    start = np.asarray(recipe.crop)
    logits = after.add(
        "Slice",
        logits,
        after.constant(start, np.int64),
        after.constant(start + recipe.window, np.int64),
        after.constant((2, 3), np.int64),
    )
    outputs: list[tuple[str, int, int]] = []
    if recipe.labels:
        _labels(after, logits, recipe)
        outputs.append((LABELS, helper.np_dtype_to_tensor_dtype(np.dtype(recipe.label_dtype)), 3))
    if recipe.scores:
        _scores(after, logits, recipe)
        outputs.append((SCORES, helper.np_dtype_to_tensor_dtype(np.dtype(recipe.scores_dtype)), 4))

    del model.graph.node[:]
    model.graph.node.extend([*before.nodes, *network, *after.nodes])
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(recipe.dtype))
    _set_input(model, PIXELS, kind, (facts.shape[0] or "batch", *recipe.tile, recipe.channels))
    _set_outputs(model, outputs)
    return model


def compose_apart(facts: GraphFacts, recipe: Recipe) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return ``compose`` in two: from raw pixels to the network's input, and from there on."""
    before = compose(facts, recipe)
    after = onnx.ModelProto()
    after.CopyFrom(before)
    fed = next(n for n, node in enumerate(before.graph.node, 1) if facts.image in node.output)
    del before.graph.node[fed:], after.graph.node[:fed]
    _set_outputs(before, [(facts.image, facts.image_type, 4)])
    shape = (facts.shape[0] or "batch", recipe.channels, *recipe.tile)
    _set_input(after, facts.image, facts.image_type, shape)
    return before, after


def _labels(chain: Chain, logits: str, recipe: Recipe) -> None:
    # ONNX Runtime selects among uint8 and int32, but not among uint16.
    dtype = "uint8" if recipe.label_dtype == "uint8" else "int32"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def label(value: int) -> str:
        return chain.constant(value, dtype)

    def channel(index: int) -> str:
        return chain.add("Gather", logits, chain.constant(index, np.int64), axis=1)

    if recipe.classes == 1:
        positive = chain.add(
            "Greater", channel(0), chain.constant(recipe.logit_threshold, np.float32)
        )
        labels = chain.add("Where", positive, label(1), label(0))
    elif recipe.classes <= UNROLLED_CLASSES:
        best, labels = channel(0), label(0)
        for index in range(1, recipe.classes):
            challenger = channel(index)
            better = chain.add("Greater", challenger, best)
            labels = chain.add("Where", better, label(index), labels)
            if index + 1 < recipe.classes:
                best = chain.add("Max", best, challenger)
    else:
        largest = chain.add("ArgMax", logits, axis=1, keepdims=0)
        labels = chain.add("Cast", largest, to=kind)
    # NaN and infinity times zero are NaN, and a sum hands NaN on: one pass finds both.
    if recipe.classes == 1:
        total = chain.add("Mul", channel(0), chain.constant(0, np.float32))
    else:
        zeros = chain.add("Mul", logits, chain.constant(0, np.float32))
        total = chain.add("ReduceSum", zeros, chain.constant([1], np.int64), keepdims=0)
    broken = chain.add("IsNaN", total)
    labels = chain.add("Where", broken, label(recipe.not_computed), labels)
    stored = helper.np_dtype_to_tensor_dtype(np.dtype(recipe.label_dtype))
    chain.add("Cast", labels, output=LABELS, to=stored)


def _scores(chain: Chain, logits: str, recipe: Recipe) -> None:
    scores = logits
    if recipe.scores == "probabilities" and recipe.activation == "sigmoid":
        scores = chain.add("Sigmoid", logits)
    elif recipe.scores == "probabilities" and recipe.activation == "softmax":
        scores = chain.add("Softmax", logits, axis=1)
    if scores != logits:
        zeros = chain.add("Mul", logits, chain.constant(0, np.float32))
        scores = chain.add("Add", scores, zeros)  # NaN for infinity, which Sigmoid hides
    chain.add(
        "Cast",
        scores,
        output=SCORES,
        to=helper.np_dtype_to_tensor_dtype(np.dtype(recipe.scores_dtype)),
    )


def _set_input(
    model: onnx.ModelProto, name: str, kind: int, shape: Sequence[int | str | None]
) -> None:
    """Replace the image input; constants that are inputs too, as of old, stay."""
    constants = {constant.name for constant in model.graph.initializer}
    kept = [entry for entry in model.graph.input if entry.name in constants]
    del model.graph.input[:]
    model.graph.input.extend([helper.make_tensor_value_info(name, kind, shape), *kept])


def _set_outputs(model: onnx.ModelProto, outputs: Sequence[tuple[str, int, int]]) -> None:
    del model.graph.output[:]
    for name, kind, rank in outputs:
        model.graph.output.append(helper.make_tensor_value_info(name, kind, [None] * rank))
