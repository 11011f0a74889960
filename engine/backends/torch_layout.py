"""Let a graph's convolutions take and give pixels whose channels lie together."""

from typing import Any

import torch
from torch.fx import GraphModule

from .torch_graph import aten, set_weight, weight_of

_LONGEST_SUM = 2304
"""Products that a convolution may add up to one number where channels come last.

There Torch adds all of them one after another: sums of 9216, as deep in the U-Net of the paper,
lose twice the digits. So deep down, where pixels are few, channels stay first.
"""


def put_channels_last(graph: GraphModule) -> None:
    """Give the weights of convolutions the layout that makes Torch keep channels last."""
    for node in list(graph.graph.nodes):
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default  # a view of another layout may not be one of this
        if node.target is not aten.convolution.default:
            continue
        weight = weight_of(graph, node.args[1])
        if weight is None or weight.ndim != 4:
            continue
        if node.args[6] or weight[0].numel() <= _LONGEST_SUM:  # the sums of a transposed one: short
            last = weight.contiguous(memory_format=torch.channels_last)
            set_weight(graph, node, 1, last)
        else:
            first: dict[str, Any] = {"memory_format": torch.contiguous_format}
            with graph.graph.inserting_before(node):
                node.update_arg(
                    0, graph.graph.call_function(aten.clone.default, (node.args[0],), first)
                )
    graph.graph.eliminate_dead_code()
    graph.recompile()
