"""Open a session of ONNX Runtime."""

from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from typing import Any

import onnx

from ...tiler.errors import DeviceError, ModelError, first_line
from .base import Execution
from .device import cuda_index


def onnx_session(model: onnx.ModelProto, execution: Execution) -> Any:
    """Return a session on the device that was asked for.

    Raises:
        DeviceError: The device or precision cannot be had.
        ModelError: ONNX Runtime cannot run the graph.
    """
    runtime = onnx_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = execution.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # warnings are about its own optimisations, errors are raised
    wanted: list[Any] = ["CPUExecutionProvider"]
    if execution.device != "cpu":
        wanted.insert(0, ("CUDAExecutionProvider", cuda_options(execution)))
        with redirect_stdout(StringIO()):  # it prints what it does not find
            runtime.preload_dlls()
    elif execution.precision == "tf32":
        raise DeviceError("precision=tf32 exists on NVIDIA GPUs only; use fp32 on the CPU")
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=wanted)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ModelError(f"ONNX Runtime cannot run this network: {first_line(error)}") from error
    # ONNX Runtime falls back to the CPU in silence.
    if execution.device != "cpu" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError(
            f"device={execution.device} cannot be had from ONNX Runtime (it needs an NVIDIA GPU, "
            "onnxruntime-gpu, CUDA and cuDNN); use device=cpu, or install a torch with CUDA"
        )
    return session


def cuda_options(execution: Execution) -> dict[str, str]:
    """Return the options of ONNX Runtime's CUDA provider."""
    return {
        "device_id": str(cuda_index(execution.device)),
        "use_tf32": str(int(execution.precision == "tf32")),
        # Every convolution's algorithms are tried once; a run has few sizes and many tiles.
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        # Tensor cores take channels last; single precision does not gain by it.
        "prefer_nhwc": str(int(execution.precision == "fp16")),
        # Else it takes twice what is needed, and the next tile size does not fit.
        "arena_extend_strategy": "kSameAsRequested",
    }


def onnx_runtime() -> Any:
    """Return the module ``onnxruntime``.

    Raises:
        DeviceError: Two packages are installed that provide it.
    """
    both = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            both.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if len(both) == 2:
        raise DeviceError(
            f"{both[0]} and {both[1]} cannot live side by side; run: pip uninstall -y onnxruntime "
            "onnxruntime-gpu && pip install onnxruntime-gpu"
        )
    import onnxruntime

    return onnxruntime
