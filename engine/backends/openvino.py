"""Run a composed ONNX graph with OpenVINO, on a CPU."""

import sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ...tiler.errors import DeviceError, MissingExtraError, ModelError
from .base import Execution, Output, Recipe, Runner
from .compose import LABELS, PIXELS, SCORES, compose, compose_apart
from .onnx_graph import GraphFacts
from .onnx_session import onnx_session

_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


def prepare_openvino(graph: GraphFacts, recipe: Recipe, execution: Execution) -> Runner:
    """Return a runner that does everything from raw pixels to labels.

    Raises:
        DeviceError: The device or precision cannot be had.
        MissingExtraError: OpenVINO is not installed.
        ModelError: OpenVINO does not know an operator of the network.
    """
    if execution.device != "cpu":
        raise DeviceError(
            f"device={execution.device} is not possible with OpenVINO; use device=cpu, or "
            "backend=onnx"
        )
    if execution.precision not in _PRECISIONS:
        raise DeviceError(
            f"precision={execution.precision} is not possible with OpenVINO; use fp32 or bf16"
        )
    core = _library().Core()
    if execution.precision == "bf16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise DeviceError("precision=bf16 is not possible on this CPU, which has none; use fp32")
    model, pixels = compose(graph, recipe), None
    # OpenVINO would round raw pixels, to bf16 or from 64 bits, and scale them before it subtracts
    # the offset: what makes them differ is lost. So ONNX Runtime makes what the network is fed.
    if any(recipe.offset):
        before, model = compose_apart(graph, recipe)
        pixels = onnx_session(before, Execution("cpu", threads=execution.threads))
    # A fixed number of tiles runs faster than a free one.
    batch = graph.shape[0] or 1
    # It gives the thread that compiles a stack for signals, and frees that with the network, maybe
    # on another thread: the next signal would end the process. So the thread ends first.
    with ThreadPoolExecutor(1) as brief:
        compiled = brief.submit(_compiled, core, model, batch, execution).result()
    return _OpenVINORunner(compiled, pixels, batch, recipe, execution.workers)


class _OpenVINORunner:
    def __init__(
        self, compiled: Any, pixels: Any, batch: int, recipe: Recipe, workers: int
    ) -> None:
        self.pixels, self.batch, self.recipe = pixels, batch, recipe
        # A request is for one thread at a time.
        self.idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(workers):
            self.idle.put(compiled.create_infer_request())

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        request = self.idle.get()
        try:
            parts = range(0, len(tiles), self.batch)
            found = [self._run(request, tiles[first : first + self.batch]) for first in parts]
        finally:
            self.idle.put(request)
        labels, scores = (
            np.concatenate([part[name] for part in found]) if wanted else None
            for name, wanted in ((LABELS, self.recipe.labels), (SCORES, self.recipe.scores))
        )
        return Output(labels, scores)

    def _run(self, request: Any, tiles: NDArray[np.generic]) -> Any:
        if self.pixels:
            (tiles,) = self.pixels.run(None, {PIXELS: tiles})
        # What it returns are copies: the next run may write where this one wrote.
        return request.infer([np.ascontiguousarray(tiles)], share_inputs=True, share_outputs=False)


def _compiled(core: Any, model: onnx.ModelProto, batch: int, execution: Execution) -> Any:
    options = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[execution.precision],  # else bf16 where it can
        "EXECUTION_MODE_HINT": "ACCURACY",
        "NUM_STREAMS": execution.workers,
        "INFERENCE_NUM_THREADS": execution.workers * execution.threads,
        "ENABLE_CPU_PINNING": False,  # two processes would share a core and leave another idle
    }
    try:
        found = core.read_model(model.SerializeToString())
        (pixels,) = found.inputs
        found.reshape([batch, *list(pixels.partial_shape)[1:]])
        return core.compile_model(found, "CPU", options)
    except Exception as error:  # its exceptions are plain RuntimeErrors, and more
        raise ModelError(
            f"OpenVINO cannot run this network: {_cause(error)}; use backend=onnx"
        ) from error


_PLACES = ("Exception from", "Check '", "FrontEnd API", "Model wasn't", "Summary:")
"""How lines begin that say where in OpenVINO something went wrong, not what."""


def _cause(error: Exception) -> str:
    lines = [line.strip(" -") for line in str(error).splitlines() if not line.startswith(_PLACES)]
    return next(filter(None, lines), type(error).__name__)[:200]


def _library() -> Any:
    """Return OpenVINO, which would report each import to its makers if it found its telemetry."""
    telemetry = "openvino_telemetry"
    sys.modules.setdefault(telemetry, None)  # type: ignore[arg-type]  # Python's "not there"
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            "backend=openvino needs the library openvino: pip install openvino"
        ) from error
    finally:
        if sys.modules[telemetry] is None:
            del sys.modules[telemetry]
    # Its first use of NumPy's types sets itself up: two threads that come first together never end.
    openvino.Type.f32.to_dtype()
    return openvino
