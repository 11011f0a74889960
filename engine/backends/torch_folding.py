"""Fold a graph's batch normalisations into the convolutions before them."""

from typing import Any

from torch.fx import GraphModule, Node

from .torch_graph import aten, set_weight, weight_of

_NORMS = {
    aten.native_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.cudnn_batch_norm.default,
}


def fold_batch_norms(graph: GraphModule) -> None:
    """Fold each whose statistics are constant and whose input nothing else sees.

    Weights are scaled in float64, so that each is rounded once.
    """
    for norm in list(graph.graph.nodes):
        before = norm.args[0] if norm.target in _NORMS else None
        if not isinstance(before, Node) or before.target is not aten.convolution.default:
            continue
        if len(before.users) > 1 or any(user.args[1] != 0 for user in norm.users):
            continue
        if _fold(graph, before, norm):
            for result in list(norm.users):
                result.replace_all_uses_with(before)
                graph.graph.erase_node(result)
            graph.graph.erase_node(norm)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _fold(graph: GraphModule, convolution: Node, norm: Node) -> bool:
    """Give a convolution the scale and shift of a normalisation; say whether that was possible."""
    gain, shift, mean, variance = (weight_of(graph, source) for source in norm.args[1:5])
    weight, bias = (weight_of(graph, source) for source in convolution.args[1:3])
    by_statistics_of_tile = len(norm.args) == 8 and norm.args[5]
    if by_statistics_of_tile or weight is None or mean is None or variance is None:
        return False
    transposed, groups = convolution.args[6], convolution.args[8]
    if weight.ndim != 4 or (transposed and groups != 1):  # its outputs lie along two axes
        return False
    eps: Any = norm.args[-1]
    scale = (variance.double() + eps).rsqrt()
    if gain is not None:
        scale = scale * gain
    moved = ((0 if bias is None else bias) - mean.double()) * scale
    if shift is not None:
        moved = moved + shift
    scaled = weight * scale.reshape((1, -1, 1, 1) if transposed else (-1, 1, 1, 1))
    set_weight(graph, convolution, 1, scaled.to(weight.dtype))
    set_weight(graph, convolution, 2, moved.to(weight.dtype))
    return True
