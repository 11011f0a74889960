"""The graph of an ONNX file as a Torch module, which runs wherever Torch does."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from ...tiler.errors import DeviceError, ModelError, first_line
from .onnx_graph import GraphFacts
from .torch_layers import LAYERS
from .torch_operators import OPERATORS, Attributes, Operator

Value = torch.Tensor | NDArray[Any]
"""A map on its device, or what is known before any pixel: a constant, a shape."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A node, ready to be run."""

    node: onnx.NodeProto
    attributes: Attributes
    operator: Operator | None
    """``None`` where no input is a map."""
    unused: tuple[str, ...]
    """What no later node needs."""


class OnnxModule(nn.Module):
    """From the normalised image of a graph to its logits."""

    def __init__(self, facts: GraphFacts) -> None:
        """Take the nodes between image and logits; what depends on constants alone is computed.

        Raises:
            DeviceError: Torch has no counterpart of an operator; the text names it.
        """
        super().__init__()
        self.image, self.logits = facts.image, facts.logits
        self._opsets = list(facts.model.opset_import)
        known = {
            entry.name: numpy_helper.to_array(entry) for entry in facts.model.graph.initializer
        }
        needed = _needed(facts)
        _check(needed)
        table, maps = {**OPERATORS, **LAYERS}, {self.image}
        on_host, on_device = set[str](), set[str]()
        nodes: list[tuple[onnx.NodeProto, Operator | None]] = []
        for node in needed:
            if all(name in known for name in node.input if name):
                known |= self._computed(node, known)
                continue
            operator = table.get(node.op_type) if maps & set(node.input) else None
            if operator:
                maps |= set(filter(None, node.output))
            for place, name in enumerate(node.input):
                (on_device if operator and place not in operator.host else on_host).add(name)
            nodes.append((node, operator))
        lasting = {self.logits}
        steps = []
        for node, operator in reversed(nodes):
            used = set(filter(None, node.input))
            unused = tuple(used - lasting - known.keys())
            steps.append(_Step(node, _attributes(node), operator, unused))
            lasting |= used
        self._steps = steps[::-1]
        self._known = {name: known[name] for name in on_host & known.keys()}
        constants = sorted(on_device & known.keys())
        self._names = {name: f"constant_{index}" for index, name in enumerate(constants)}
        for name, attribute in self._names.items():
            array = known[name]
            tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
            if tensor.is_floating_point():
                self.register_parameter(attribute, nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(attribute, tensor)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(batch, class, y, x)`` in single precision or less."""
        values: dict[str, Value] = {self.image: image}
        for step in self._steps:
            try:
                values |= self._run(step, values, image.device)
            except ModelError as error:
                raise ModelError(
                    f"Torch cannot run a node of this network ({error}); use backend=onnx"
                ) from error
            for name in step.unused:
                values.pop(name, None)
        found = values[self.logits]
        assert isinstance(found, torch.Tensor), "the logits depend on the image"
        return found if found.is_floating_point() else found.float()

    def _run(self, step: _Step, values: dict[str, Value], device: torch.device) -> dict[str, Value]:
        node = step.node
        if node.op_type in ("Shape", "Size"):
            shape = np.asarray(tuple(values[node.input[0]].shape), np.int64)
            kept = shape[step.attributes.get("start", 0) : step.attributes.get("end")]
            counted = kept if node.op_type == "Shape" else np.asarray(shape.prod())
            return {node.output[0]: counted}
        if step.operator is None:
            return self._computed(node, {**self._known, **values})
        inputs = [
            self._on_host(name, node, values)
            if place in step.operator.host
            else self._tensor(name, values, device)
            for place, name in enumerate(node.input)
        ]
        found = step.operator.run(step.attributes, *inputs)
        results = (found,) if isinstance(found, torch.Tensor) else found
        return dict(zip(node.output, results, strict=False))

    def _computed(self, node: onnx.NodeProto, known: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs of a node whose inputs are known, by ONNX's own arithmetic."""
        given = {name: known[name] for name in node.input if name}
        outputs = [name for name in node.output if name]
        try:
            ends = (
                [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names]
                for names in (given, outputs)
            )
            graph = helper.make_graph([node], "node", *ends)
            model = helper.make_model(graph, opset_imports=self._opsets)
            found = ReferenceEvaluator(model).run(None, given)
        except Exception as error:  # of any type
            raise ModelError(f"{node.op_type} of constants: {first_line(error)}") from error
        return {name: np.asarray(value) for name, value in zip(outputs, found, strict=True)}

    def _on_host(
        self, name: str, node: onnx.NodeProto, values: dict[str, Value]
    ) -> NDArray[Any] | None:
        found = self._known.get(name) if name not in values else values[name]
        if isinstance(found, torch.Tensor):
            raise ModelError(f"{node.op_type} whose {name} depends on the pixels")
        return found if name else None

    def _tensor(
        self, name: str, values: dict[str, Value], device: torch.device
    ) -> torch.Tensor | None:
        if name in self._names:
            found: torch.Tensor = getattr(self, self._names[name])
            return found
        value = values[name] if name else None
        return torch.from_numpy(value).to(device) if isinstance(value, np.ndarray) else value


_OF_SHAPES = ("Constant", "ConstantOfShape", "Range", "Shape", "Size")
"""Operators that need not be known to Torch, as they only ever see what is known on the host."""


def _check(nodes: Iterable[onnx.NodeProto]) -> None:
    unknown = {
        f"{node.domain}.{node.op_type}".removeprefix("ai.onnx").strip(".")
        for node in nodes
        if node.domain not in ("", "ai.onnx")
        or node.op_type not in (*OPERATORS, *LAYERS, *_OF_SHAPES)
    }
    if unknown:
        raise DeviceError(
            f"backend=torch has no operator {', '.join(sorted(unknown))}; use backend=onnx, or "
            "give the network as a torch module"
        )


def _needed(facts: GraphFacts) -> list[onnx.NodeProto]:
    """Return the nodes that the logits depend on, in their order."""
    wanted, found = {facts.logits}, []
    for node in reversed(facts.model.graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            found.append(node)
    return found[::-1]


def _attributes(node: onnx.NodeProto) -> Attributes:
    """Return a node's attributes by name, and as ``outputs`` the number of its outputs."""
    found: Attributes = {"outputs": len(node.output)}
    for entry in node.attribute:
        value = helper.get_attribute_value(entry)
        found[entry.name] = value.decode() if isinstance(value, bytes) else value
    return found
