"""A Torch module as a graph of pure operators, which several threads may run at once."""

import operator
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_aggregate, map_arg

from .torch_hash import module_hash
from .torch_sizes import KnownSizes

Call = Callable[[torch.Tensor], torch.Tensor]

aten = torch.ops.aten


class NoGraphError(Exception):
    """A module does more than a graph of its operators can tell; the text says what."""


def trace(
    module: nn.Module, call: Call, images: torch.Tensor, *, only_sizes: bool = False
) -> tuple[GraphModule, torch.Tensor]:
    """Run a module; return the operators that it ran, with its own weights, and what it gave.

    What the module decides in Python is decided for good, as for these images: the caller has to
    compare the graph with the module on others.

    Args:
        module: What is run.
        call: Runs it.
        images: As it will be given, ``(batch, channel, y, x)``.
        only_sizes: Compute no numbers, in next to no time; what it gave is of no use then.

    Raises:
        NoGraphError: It keeps something from run to run, draws random numbers, decides by what it
            sees, or has an operator that is not Torch's own.
    """
    _check_parts(module)
    before = module_hash(module)
    given: list[torch.Tensor] = []

    def with_known_sizes(images: torch.Tensor) -> torch.Tensor:
        with KnownSizes():
            given.append(call(images))
        return given[0]

    mode: Literal["fake", "real"] = "fake" if only_sizes else "real"
    graph = make_fx(with_known_sizes, tracing_mode=mode, _allow_non_fake_inputs=True)(images)
    if module_hash(module) != before:
        raise NoGraphError("it keeps something on itself while it runs")
    graph.graph.eliminate_dead_code()
    for node in graph.graph.nodes:
        if node.target is aten._convolution.default:  # as TorchScript calls it
            node.target, node.args = aten.convolution.default, node.args[:9]
    _evaluate_constants(graph)
    _check_pure(graph)
    graph.recompile()
    return graph, given[0].detach()


def signature(graph: GraphModule) -> list[str]:
    """Return the operators of a graph in their order, alike for all sizes of the images.

    Whole numbers are left out, and weights are told by name, type and shape.
    """

    def erased(value: Any) -> Any:
        return "n" if isinstance(value, int) and not isinstance(value, bool) else repr(value)

    found = []
    for node in graph.graph.nodes:
        given = map_aggregate((node.args, node.kwargs), erased)
        weight = getattr(graph, str(node.target)) if node.op == "get_attr" else None
        kind = "" if weight is None else f"{type(weight).__name__} {tuple(weight.shape)}"
        found.append(f"{node.op} {node.target} {given} {kind}")
    return found


def weight_of(graph: GraphModule, node: Any) -> torch.Tensor | None:
    """Return the tensor that a node of a graph stands for, if it is a constant."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    found: torch.Tensor = getattr(graph, str(node.target))
    return found.detach()


def set_weight(graph: GraphModule, user: Node, place: int, weight: torch.Tensor) -> None:
    """Give an operator another constant; other users of the old one keep it."""
    name = f"{user.name}_{place}"
    graph.register_buffer(name, weight)
    with graph.graph.inserting_before(user):
        user.update_arg(place, graph.graph.get_attr(name))


def _check_parts(module: nn.Module) -> None:
    for part in module.modules():
        hooks = (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
        # Those of Torch itself check an exported program's input, or make weights of others.
        if any(not hook.__module__.startswith("torch.") for hook in hooks):
            raise NoGraphError("it has hooks")
        if isinstance(part, torch.jit.ScriptModule):
            code: Any = getattr(
                part, "inlined_graph", None
            )  # parts that others spell out have none
            if code is not None and code.findNode("prim::SetAttr", True):
                raise NoGraphError("it keeps something on itself while it runs")


def _check_pure(graph: GraphModule) -> None:
    """Refuse what would make two runs of a graph depend on each other."""
    lasting: set[Node] = set()  # what outlives a run or comes from outside, and views of it
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "get_attr"):
            lasting.add(node)
        elif node.target is operator.getitem:
            lasting |= {node} if node.args[0] in lasting else set()
        elif node.op == "call_function":
            kind = node.target
            if not isinstance(kind, OpOverload) or kind.namespace != "aten":
                raise NoGraphError(f"its operator {kind} is not one of Torch's own")
            if torch.Tag.nondeterministic_seeded in kind.tags:
                raise NoGraphError(f"it draws random numbers ({kind})")
            for given, wanted in zip(node.args, kind._schema.arguments, strict=False):
                if wanted.alias_info is None or given not in lasting:
                    continue
                if wanted.alias_info.is_write:
                    raise NoGraphError(f"it writes into its weights or its input ({kind})")
                lasting.add(node)


def _evaluate_constants(graph: GraphModule) -> None:
    """Run once what depends on weights alone, such as their conversion to another type."""

    def value(source: Node) -> torch.Tensor | None:
        return weight_of(graph, source)

    for node in list(graph.graph.nodes):
        sources, kind = node.all_input_nodes, node.target
        if not isinstance(kind, OpOverload) or kind._schema.is_mutable or not sources:
            continue
        if torch.Tag.nondeterministic_seeded in kind.tags:
            continue
        if any(source.op != "get_attr" for source in sources):
            continue
        found = kind(*map_arg(node.args, value), **map_arg(node.kwargs, value))
        if isinstance(found, torch.Tensor):
            graph.register_buffer(node.name, found)
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(node.name))
            graph.graph.erase_node(node)
