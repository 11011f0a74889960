"""A network from an ``.onnx`` file, run by ONNX Runtime, OpenVINO or Torch."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data

from ...tiler.errors import DeviceError, MissingExtraError, ModelError
from ..naming import readable
from .base import Execution, Form, Layer, NetworkFacts, Output, Recipe, Runner
from .compose import LABELS, PIXELS, SCORES, compose, cut_to_logits, with_shapes
from .device import cuda_index, device_kind
from .metadata import THE_MODEL, with_metadata
from .noise import as_input
from .onnx_causes import tile_dependent_parts
from .onnx_footprint import check_footprint
from .onnx_graph import GraphFacts, read_graph
from .onnx_session import onnx_runtime, onnx_session
from .onnx_types import numpy_name

if TYPE_CHECKING:  # Torch takes a second to load, and few runs need it
    from .onnx_torch import OnnxInTorch


_FREE_PX = 256
"""Length of a free axis for which a graph must fit the memory: that of the first tile tried."""


class OnnxNetwork:
    """A network from an ``.onnx`` file."""

    def __init__(self, path: Path, head: str | None = None) -> None:
        self.graph = read_graph(path, head)
        batch, channels, height, width = self.graph.shape
        self._facts = NetworkFacts(
            name=readable(path.stem),
            sha256=_hash(path, self.graph.model),
            backend="onnx",
            channels=channels,
            fixed=(height, width),
            batch=batch,
            head=self.graph.head,
            ends_in=self.graph.ends_in,
            input_dtype=self.graph.stated_type,
            tile_dependent=tile_dependent_parts(
                self.graph.model, self.graph.image, self.graph.logits
            ),
        )
        self._facts = with_metadata(self._facts, THE_MODEL, self.graph.metadata)
        self._layers: dict[tuple[int, tuple[int, int]], tuple[Layer, ...]] = {}
        self._checked_px = 0
        self._check_footprint(batch or 1, channels or 1, height or _FREE_PX, width or _FREE_PX)

    def _check_footprint(self, *shape: int) -> None:
        """Refuse tiles of a shape that cannot fit, unless larger ones could."""
        batch, channels, height, width = shape
        if batch * height * width > self._checked_px:
            tile = batch, channels, height, width
            check_footprint(self.graph.model, self.graph.image, tile, self._facts.name)
            self._checked_px = batch * height * width

    @property
    def facts(self) -> NetworkFacts:
        """Facts about the network."""
        return self._facts

    def takes(self, channels: int) -> bool:
        """Say whether the network can be given so many channels."""
        return self.facts.channels in (None, channels)

    @property
    def _number(self) -> str:
        """Type of the image input of the graph, which is that of the file unless it is double."""
        return numpy_name(self.graph.image_type)

    @cached_property
    def _logits_session(self) -> Any:
        return onnx_session(cut_to_logits(self.graph), Execution("cpu", threads=_all_cores()))

    def logits(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run normalised tiles ``(batch, channel, y, x)``; return ``(batch, class, y, x)``.

        A network of whole numbers is given bytes instead of numbers around 0.
        """
        results = []
        batch = self.facts.batch or len(tiles)
        self._check_footprint(batch, *tiles.shape[1:])
        for first in range(0, len(tiles), batch):
            run = tiles[first : first + batch]
            filled = np.concatenate([run, *[run[-1:]] * (batch - len(run))])
            filled = as_input(filled, self._number)
            found = self._logits_session.run(None, {self.graph.image: filled}, _in_silence())[0]
            if len(found) != batch:
                raise ModelError(
                    f"{self.facts.name} returns a map of shape {found.shape} for {batch} tiles; "
                    "export it from (batch, channel, y, x) to (batch, class, y, x)"
                )
            results.append(found[: len(run)])
        return np.concatenate(results)

    @cached_property
    def _shapes_session(self) -> tuple[Any, list[onnx.NodeProto], dict[str, tuple[int, ...]]]:
        model, layers = with_shapes(self.graph)
        weights = {entry.name: tuple(entry.dims) for entry in model.graph.initializer}
        return onnx_session(model, Execution("cpu", threads=_all_cores())), layers, weights

    def layers(self, channels: int, tile: tuple[int, int]) -> tuple[Layer, ...]:
        """Return the work of one run over a tile, which is the same for every image."""
        about = channels, tile
        if about not in self._layers:
            self._layers[about] = self._layers_of(channels, tile)
        return self._layers[about]

    def _layers_of(self, channels: int, tile: tuple[int, int]) -> tuple[Layer, ...]:
        """Run a tile: the graph tells the shapes as it runs."""
        session, nodes, weights = self._shapes_session
        if not nodes:
            return ()
        zeros = np.zeros((self.facts.batch or 1, channels, *tile), self._number)
        shapes = session.run(None, {self.graph.image: zeros})
        found = []
        for node, source, result in zip(nodes, shapes[::2], shapes[1::2], strict=True):
            weight = weights.get(node.input[1])
            if len(result) != 4 or weight is None:
                continue
            _, width_in, *size_in = map(int, source)
            _, width_out, height, width = map(int, result)
            if node.op_type == "MatMul":  # over the last axis, so that is where the channels are
                _, height, width, width_out = map(int, result)
            if node.op_type == "Conv":
                work = width_out * height * width * int(np.prod(weight[1:]))
            elif node.op_type == "ConvTranspose":
                work = width_in * int(np.prod(size_in)) * int(np.prod(weight[1:]))
            else:
                work = int(np.prod(result[1:])) * int(source[-1])
            found.append(Layer(work, height, width, 4 * width_out * height * width))
        return tuple(found)

    @cached_property
    def _in_torch(self) -> "OnnxInTorch":
        try:
            from .onnx_torch import OnnxInTorch
        except ImportError as error:
            raise MissingExtraError(
                "backend=torch needs the library torch: pip install torch"
            ) from error
        return OnnxInTorch(self.graph, self.facts, self.logits)

    def form(self, recipe: Recipe, wanted: Execution) -> tuple[Form, str]:
        """Return that of a file, which is a graph for whatever runs it; in Torch, as of a module.

        Raises:
            DeviceError: Torch has no counterpart of an operator.
            ModelError: What Torch computes is not what ONNX Runtime does.
        """
        if wanted.backend == "torch":
            return self._in_torch.form(recipe, wanted)
        return wanted.form, ""

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        """Return a runner that does everything from raw pixels to labels."""
        graph = self.graph
        if execution.backend == "openvino":
            from .openvino import prepare_openvino

            return prepare_openvino(graph, recipe, execution)
        if execution.backend == "torch":
            return self._in_torch.prepare(recipe, execution)
        if execution.precision == "fp16":
            graph = _half(graph)
        elif execution.precision == "bf16":
            raise DeviceError(
                "precision=bf16 is not possible with ONNX Runtime; use fp32, backend=torch, or "
                "backend=openvino on a CPU"
            )
        session = onnx_session(compose(graph, recipe), execution)
        if execution.device == "cpu":
            return OnnxRunner(session, recipe)
        return BoundOnnxRunner(session, recipe, execution.device)

    def close(self) -> None:
        """Leave Torch as it was found, where it was used: a file is only read."""
        if "_in_torch" in vars(self):
            self._in_torch.close()


class OnnxRunner:
    """A session that takes and gives arrays of the host."""

    def __init__(self, session: Any, recipe: Recipe) -> None:
        """Take a session of the composed graph, and what is wanted of it."""
        self.session = session
        self.outputs = [
            name for name, on in ((LABELS, recipe.labels), (SCORES, recipe.scores)) if on
        ]

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        """Run raw pixels ``(batch, y, x, channel)``."""
        return self._output(self.session.run(self.outputs, {PIXELS: tiles}))

    def _output(self, found: list[NDArray[Any]]) -> Output:
        by_name = dict(zip(self.outputs, found, strict=True))
        return Output(by_name.get(LABELS), by_name.get(SCORES))


class BoundOnnxRunner(OnnxRunner):
    """A session whose input and results lie on its device, so that each crosses over once."""

    def __init__(self, session: Any, recipe: Recipe, device: str) -> None:
        """Take, besides, ``cpu`` or ``cuda:N``."""
        super().__init__(session, recipe)
        self.place = (device_kind(device), cuda_index(device))

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        """Run raw pixels ``(batch, y, x, channel)``."""
        there = onnx_runtime().OrtValue.ortvalue_from_numpy(
            np.ascontiguousarray(tiles), *self.place
        )
        binding = self.session.io_binding()
        binding.bind_ortvalue_input(PIXELS, there)
        for name in self.outputs:
            binding.bind_output(name, *self.place)
        self.session.run_with_iobinding(binding)
        return self._output(binding.copy_outputs_to_cpu())


def _hash(path: Path, model: onnx.ModelProto) -> str:
    """Return the hash of the file, and of its weights where they lie in files beside it."""
    digest = hashlib.sha256(path.read_bytes())
    bare = onnx.load(path, load_external_data=False)
    if any(uses_external_data(weight) for weight in bare.graph.initializer):
        for weight in model.graph.initializer:
            digest.update(weight.raw_data)
    return digest.hexdigest()


def _all_cores() -> int:
    return 0  # ONNX Runtime's word for one thread per core


def _half(graph: GraphFacts) -> GraphFacts:
    """Return the graph in half precision, its input and output still in single precision."""
    from dataclasses import replace

    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(
        cut_to_logits(graph), keep_io_types=True, disable_shape_infer=False
    )
    return replace(graph, model=model, logits="tile_infer/logits")


def _in_silence() -> Any:
    """Return options of a run that raises and prints nothing: the probe tries sizes."""
    options = onnx_runtime().RunOptions()
    options.log_severity_level = 4
    return options
