"""Run a network from an ``.onnx`` file by Torch."""

from collections.abc import Callable
from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import ModelError
from .base import Execution, Form, NetworkFacts, Recipe, Runner
from .onnx_graph import GraphFacts
from .onnx_module import OnnxModule
from .onnx_types import numpy_name
from .torch import TorchNetwork

LIMIT = 1e-4
"""Largest difference from ONNX Runtime, as a share of the largest logit. Sums in another order make
a fiftieth of that; an operator understood in another way makes a hundred times that."""

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class OnnxInTorch:
    """The graph of a file as a Torch module, compared with ONNX Runtime before a plan is made."""

    def __init__(self, graph: GraphFacts, facts: NetworkFacts, logits: Logits) -> None:
        """Translate a graph.

        Args:
            graph: From the image to the logits.
            facts: What the file says.
            logits: Runs normalised tiles ``(batch, channel, y, x)`` by ONNX Runtime on the CPU.

        Raises:
            DeviceError: Torch has no counterpart of an operator.
        """
        self.by_onnx_runtime = logits
        # The module's own: the file may state doubles, which the graph has no more.
        number = numpy_name(graph.image_type)
        stated = replace(facts, ends_in="none", input_dtype=number)
        self.network = TorchNetwork(OnnxModule(graph), stated=stated)
        self.checked = False

    def form(self, recipe: Recipe, wanted: Execution) -> tuple[Form, str]:
        """Return the quickest form; see ``TorchNetwork``.

        Raises:
            ModelError: What Torch computes is not what ONNX Runtime does.
        """
        if not self.checked:
            self._check(recipe)
            self.checked = True
        return self.network.form(_without_ending(recipe), wanted)

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        """Return a runner; see ``TorchNetwork``."""
        return self.network.prepare(_without_ending(recipe), execution)

    def close(self) -> None:
        """Leave Torch's settings as they were found."""
        self.network.close()

    def _check(self, recipe: Recipe) -> None:
        facts = self.network.facts
        shape = (facts.batch or 1, recipe.channels, *recipe.tile)
        noise = np.random.default_rng(0).standard_normal(shape, np.float32)
        wanted, found = self.by_onnx_runtime(noise), self.network.logits(noise)
        largest, worst = float(np.abs(wanted).max()), inf
        if found.shape == wanted.shape:
            worst = float(np.abs(found.astype(np.float64) - wanted).max())
        if not worst <= LIMIT * largest:
            raise ModelError(
                f"{facts.name} gives other logits in Torch than in ONNX Runtime (by {worst:.1g}, "
                f"where the largest is {largest:.1g}); use backend=onnx, and tell us of the network"
            )


def _without_ending(recipe: Recipe) -> Recipe:
    """Return the recipe of a module that gives logits, as the graph was cut to do."""
    return replace(recipe, ends_in="none")
