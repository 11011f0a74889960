"""Each operator of ONNX says the same in Torch as in ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tile_infer import DeviceError, ModelError
from tile_infer.engine.backends.metadata import Metadata
from tile_infer.engine.backends.onnx_graph import GraphFacts
from tile_infer.engine.backends.onnx_module import OnnxModule
from tile_infer.engine.backends.torch_layers import LAYERS
from tile_infer.engine.backends.torch_operators import OPERATORS

SHAPE = (2, 4, 12, 10)
RANDOM = np.random.default_rng(0)


def numbers(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape, np.float32)


def single(*values: float) -> NDArray[np.float32]:
    """Return these; one alone without an axis."""
    return np.asarray(values[0] if len(values) == 1 else values, np.float32)


def whole(*values: int) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


NONE = np.zeros(0, np.float32)
"""Stands for an input that is left out."""

Constants = dict[str, NDArray[Any]]
Case = tuple[str, list[NDArray[Any]], dict[str, Any]]

POSITIVE = ("Log", "Sqrt", "Pow", "Reciprocal")

PLAIN = (
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Log", "Mish", "Neg"),
    *("Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt"),
    *("Tanh", "Dropout", "GlobalAveragePool", "GlobalMaxPool"),
)
TWO = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow")

CASES: list[Case] = [
    *((name, [], {}) for name in PLAIN),
    *((name, [abs(numbers(1, 4, 1, 1)) + 0.5], {}) for name in TWO),
    ("Max", [numbers(1, 4, 1, 1), numbers(12, 10)], {}),
    ("Mod", [abs(numbers(1)) + 1], {"fmod": 1}),
    ("Clip", [single(-0.5), single(0.5)], {}),
    ("Clip", [NONE, single(0.5)], {}),
    ("Celu", [], {"alpha": 0.7}),
    ("Elu", [], {"alpha": 0.7}),
    ("Gelu", [], {}),
    ("Gelu", [], {"approximate": "tanh"}),
    ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}),
    ("LeakyRelu", [], {"alpha": 0.2}),
    ("Selu", [], {}),
    ("PRelu", [numbers(4, 1, 1)], {}),
    ("Softmax", [], {"axis": 1}),
    ("LogSoftmax", [], {"axis": 1}),
    ("MatMul", [numbers(10, 7)], {}),
    ("Einsum", [numbers(4, 5)], {"equation": "bcyx,cd->bdyx"}),
    ("Concat", [numbers(2, 3, 12, 10)], {"axis": 1}),
    ("Slice", [whole(1, 0), whole(9, 2**62), whole(-2, 1), whole(2, 1)], {}),
    ("Slice", [whole(-1), whole(-(2**62)), whole(3), whole(-1)], {}),
    ("Gather", [np.asarray(2)], {"axis": 1}),
    ("Gather", [np.asarray([[0, -1], [2, 1]])], {"axis": 2}),
    ("Reshape", [whole(0, 2, 2, -1, 10)], {}),
    ("Flatten", [], {"axis": 2}),
    ("Flatten", [], {"axis": -1}),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}),
    ("Unsqueeze", [whole(-1, 0)], {}),
    ("Expand", [whole(3, 1, 4, 1, 10)], {}),
    ("Tile", [whole(1, 1, 2, 3)], {}),
    ("DepthToSpace", [], {"blocksize": 2}),
    ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [], {"blocksize": 2}),
    *(
        (f"Reduce{kind}", [whole(1)], {"keepdims": keepdims})
        for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L2")
        for keepdims in (0, 1)
    ),
    ("ReduceMean", [], {}),
    ("ReduceSum", [], {"noop_with_empty_axes": 1}),
    ("Conv", [numbers(6, 4, 3, 3), numbers(6)], {}),
    ("Conv", [numbers(6, 4, 3, 3)], {"pads": [1, 2, 1, 2], "strides": [2, 1]}),
    ("Conv", [numbers(6, 4, 3, 3)], {"pads": [0, 1, 2, 0]}),
    ("Conv", [numbers(6, 2, 3, 3)], {"dilations": [2, 2], "group": 2}),
    ("Conv", [numbers(6, 4, 4, 4)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [numbers(6, 4, 4, 4)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", [numbers(6, 4, 3, 3)], {"auto_pad": "VALID"}),
    ("ConvTranspose", [numbers(4, 6, 2, 2), numbers(6)], {"strides": [2, 2]}),
    ("ConvTranspose", [numbers(4, 6, 3, 3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    (
        "ConvTranspose",
        [numbers(4, 6, 3, 3)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    ("ConvTranspose", [numbers(4, 6, 3, 3)], {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
    ("ConvTranspose", [numbers(4, 3, 3, 3)], {"group": 2, "dilations": [2, 2]}),
    ("ConvTranspose", [numbers(4, 6, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", [numbers(4, 6, 4, 4)], {"strides": [2, 2], "output_shape": [25, 20]}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "count_include_pad": 1}),
    ("BatchNormalization", [*numbers(3, 4), abs(numbers(4)) + 0.1], {"epsilon": 1e-3}),
    ("InstanceNormalization", [*numbers(2, 4)], {"epsilon": 1e-3}),
    ("LayerNormalization", [*numbers(2, 10)], {}),
    ("LayerNormalization", [numbers(12, 10)], {"axis": -2}),
    ("GroupNormalization", [*numbers(2, 4)], {"num_groups": 2}),
    ("LRN", [], {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 1.5}),
    ("LpNormalization", [], {"axis": 1, "p": 2}),
    ("Pad", [whole(0, 0, 1, 2, 0, 0, 3, 4)], {}),
    ("Pad", [whole(0, 1, -1, 2, 0, 0, 3, -4), single(2.5)], {}),
    ("Pad", [whole(0, 0, 1, 2, 0, 0, 3, 4)], {"mode": "reflect"}),
    ("Pad", [whole(1, 2, 3, 4), NONE, whole(2, 3)], {"mode": "edge"}),
    *(
        ("Resize", [NONE, single(1, 1, *factors)], {"mode": mode, **how})
        for factors in ((2, 2), (3, 1.5), (0.5, 0.25), (1.3, 2.7))
        for mode, hows in {
            "nearest": [
                {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
                {"coordinate_transformation_mode": "half_pixel"},
                {
                    "coordinate_transformation_mode": "half_pixel",
                    "nearest_mode": "round_prefer_ceil",
                },
                {"coordinate_transformation_mode": "align_corners", "nearest_mode": "ceil"},
            ],
            "linear": [
                {"coordinate_transformation_mode": "half_pixel"},
                {"coordinate_transformation_mode": "pytorch_half_pixel"},
                {"coordinate_transformation_mode": "align_corners"},
                {"coordinate_transformation_mode": "asymmetric"},
            ],
        }.items()
        for how in hows
    ),
    ("Resize", [NONE, NONE, whole(2, 4, 25, 7)], {"mode": "linear"}),
    ("Resize", [NONE, NONE, whole(25, 7)], {"mode": "nearest", "axes": [2, 3]}),
    (
        "Resize",
        [NONE, single(1, 1, 2, 2)],
        {"mode": "cubic", "coordinate_transformation_mode": "align_corners"},
    ),
    ("Resize", [NONE, single(1, 1, 2, 2)], {"mode": "cubic"}),
]


def graph(nodes: list[onnx.NodeProto], constants: Constants) -> GraphFacts:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [image],
            [logits],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    facts = ("image", TensorProto.FLOAT, "float32", (None, 4, None, None), "logits", "logits")
    return GraphFacts(model, *facts, "none", Metadata())


def one_node(kind: str, inputs: list[NDArray[Any]], attributes: dict[str, Any]) -> GraphFacts:
    names = ["" if value is NONE else f"input_{n}" for n, value in enumerate(inputs)]
    constants = {name: value for name, value in zip(names, inputs, strict=True) if name}
    return graph([helper.make_node(kind, ["image", *names], ["logits"], **attributes)], constants)


def compared(facts: GraphFacts, images: NDArray[np.float32]) -> float:
    """Return the largest difference, as a share of the largest number."""
    session = onnxruntime.InferenceSession(
        facts.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.run(None, {"image": images})
    found = OnnxModule(facts)(torch.from_numpy(images)).numpy()
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def test_an_operator_gives_the_same_numbers(case: Case) -> None:
    images = numbers(*SHAPE)
    assert compared(one_node(*case), abs(images) + 0.1 if case[0] in POSITIVE else images) < 2e-6


def test_every_operator_is_tested() -> None:
    single = {case[0] for case in CASES}
    rest = {"And", "Or", "Xor", "Not", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
    rest |= {"ArgMax", "Cast", "Gemm", "IsNaN", "Split", "Squeeze", "Where"}  # below
    assert single | rest == OPERATORS.keys() | LAYERS.keys()


def test_decisions_give_the_same_numbers() -> None:
    make = helper.make_node
    nodes = [
        make("Greater", ["image", "half"], ["high"]),
        make("Less", ["image", "zero"], ["low"]),
        make("GreaterOrEqual", ["image", "zero"], ["not_low"]),
        make("LessOrEqual", ["image", "half"], ["not_high"]),
        make("And", ["not_low", "not_high"], ["between"]),
        make("Or", ["high", "low"], ["outside"]),
        make("Xor", ["between", "outside"], ["all"]),
        make("Not", ["between"], ["turned"]),
        make("Equal", ["image", "image"], ["numbers"]),
        make("IsNaN", ["image"], ["none"]),
        make("Xor", ["numbers", "none"], ["numbers_too"]),
        make("And", ["all", "numbers_too"], ["everywhere"]),
        make("Cast", ["everywhere"], ["one"], to=TensorProto.FLOAT),
        make("Where", ["turned", "image", "one"], ["chosen"]),
        make("ArgMax", ["chosen"], ["best"], axis=1),
        make("Cast", ["best"], ["best_float"], to=TensorProto.FLOAT),
        make("Split", ["image"], ["first", "second"], axis=1, num_outputs=2),
        make("Split", ["image", "sizes"], ["third", "fourth"], axis=1),
        make("Concat", ["chosen", "best_float", "second", "third", "fourth"], ["logits"], axis=1),
    ]
    constants: Constants = {"half": single(0.5), "zero": single(0), "sizes": whole(1, 3)}
    assert compared(graph(nodes, constants), numbers(*SHAPE)) == 0


def test_channels_are_weighed_as_in_squeeze_and_excitation() -> None:
    make = helper.make_node
    nodes = [
        make("GlobalAveragePool", ["image"], ["mean"]),
        make("Squeeze", ["mean", "last"], ["flat"]),
        make("Gemm", ["flat", "weight", "bias"], ["gains"], transB=1, alpha=0.5, beta=2.0),
        make("Sigmoid", ["gains"], ["shares"]),
        make("Unsqueeze", ["shares", "last"], ["spread"]),
        make("Mul", ["image", "spread"], ["logits"]),
    ]
    constants: Constants = {"last": whole(2, 3), "weight": numbers(4, 4), "bias": numbers(4)}
    assert compared(graph(nodes, constants), numbers(*SHAPE)) < 1e-6


@pytest.mark.parametrize("size", [(12, 10), (16, 24)])
def test_sizes_are_computed_as_exporters_write_it(size: tuple[int, int]) -> None:
    make = helper.make_node
    nodes = [
        make("Constant", [], ["two"], value_ints=[2, 2]),
        make("Shape", ["image"], ["all"]),
        make("Shape", ["image"], ["planes"], end=2),
        make("Slice", ["all", "second", "fourth"], ["size"]),
        make("Mul", ["size", "two"], ["double"]),
        make("Concat", ["planes", "double"], ["wanted"], axis=0),
        make("Resize", ["image", "", "", "wanted"], ["large"], mode="nearest"),
        make("Size", ["image"], ["count"]),
        make("Cast", ["count"], ["number"], to=TensorProto.FLOAT),
        make("Div", ["large", "number"], ["logits"]),
    ]
    facts = graph(nodes, {"second": whole(2), "fourth": whole(4)})
    facts.model.graph.input[0].type.tensor_type.ClearField("shape")  # any size
    assert compared(facts, numbers(2, 4, *size)) < 1e-6


def test_an_operator_that_torch_has_not_is_named() -> None:
    nodes = [
        helper.make_node("Hardmax", ["image"], ["hard"]),
        helper.make_node("Fused", ["hard"], ["logits"], domain="com.microsoft"),
    ]
    with pytest.raises(DeviceError, match=r"no operator Hardmax, com\.microsoft\.Fused"):
        OnnxModule(graph(nodes, {}))


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("AveragePool", [], {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ("Pad", [whole(0, 1, 0, 0, 0, 0, 0, 0)], {"mode": "reflect"}),
        ("Resize", [NONE, single(1, 1, 2, 2)], {"antialias": 1, "mode": "linear"}),
        ("Resize", [NONE, single(1, 2, 2, 2)], {}),
    ],
)
def test_what_torch_does_not_do_is_refused(
    kind: str, inputs: list[NDArray[Any]], attributes: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match=rf"{kind}.*use backend=onnx"):
        OnnxModule(one_node(kind, inputs, attributes))(torch.zeros(SHAPE))


def test_a_shape_that_depends_on_the_pixels_is_refused() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "first"], ["shape"]),
        helper.make_node("Expand", ["image", "shape"], ["logits"]),
    ]
    with pytest.raises(ModelError, match="depends on the pixels"):
        OnnxModule(graph(nodes, {"first": whole(0)}))(torch.ones(SHAPE))


def test_what_is_not_needed_is_dropped_while_it_runs() -> None:
    nodes = [
        helper.make_node("Relu", ["image" if n == 0 else f"map_{n}"], [f"map_{n + 1}"])
        for n in range(50)
    ]
    nodes.append(helper.make_node("Identity", ["map_50"], ["logits"]))
    module = OnnxModule(graph(nodes, {}))
    assert [step.unused for step in module._steps][1:3] == [("map_1",), ("map_2",)]
