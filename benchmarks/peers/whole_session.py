"""One pass over the whole image, mirrored all around, in ONNX Runtime or OpenVINO on all cores."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extended_image import extended_image
from one_run import Done, Job, run

Floats = NDArray[np.float32]


def onnx_pass(network: Path, pixels: Floats, threads: int) -> Floats:
    """Return the logits of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(network), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {session.get_inputs()[0].name: pixels})[0])


def openvino_pass(network: Path, pixels: Floats, threads: int) -> Floats:
    """Return the logits of OpenVINO in fp32, compiled for this very size."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(network))
    model.reshape(pixels.shape)
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    return np.asarray(core.compile_model(model, "CPU", options)([pixels])[0])


PASSES = {"onnx": onnx_pass, "openvino": openvino_pass}


def segment(job: Job) -> Done:
    """Segment into a NumPy file; beside it, where asked for, how far the best two logits differ."""
    padded, inside = extended_image(job)
    pixels = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32)
    pixels /= 255
    found = PASSES[job.backend or "onnx"](job.network, pixels, job.threads)
    logits = found[0][(slice(None), *inside)]
    # Ties go to the first, as by argmax, at a tenth of its time.
    background, nucleus = logits
    out = job.out.with_suffix(".npy")
    np.save(out, (nucleus > background).view(np.uint8))
    if job.gaps:
        np.save(job.out.with_suffix(".gaps.npy"), abs(nucleus - background) / abs(logits).max())
    return Done(out, padded.shape[0] * padded.shape[1])


if __name__ == "__main__":
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports each import
    # As everybody's libraries, what runs the network is imported before the clock starts.
    __import__("openvino" if "--backend=openvino" in sys.argv else "onnxruntime")
    run(segment, "numpy", "tifffile")
