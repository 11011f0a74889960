"""Small packages of the BioImage Model Zoo, written as a colleague would hand them over."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STEP_PX = 2
"""The network pools once: valid sizes, and shifts, are even."""


def write_network(
    path: Path,
    *,
    channels: int = 1,
    classes: int = 1,
    size: int | None = None,
    padded: bool = True,
    half: bool = False,
    ending: str | None = None,
    outputs: tuple[str, ...] = ("out",),
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write 3 x 3 convolution, pooling by 2 and its reverse; all outputs are the same.

    With ``half`` the reverse is left out: the output has half the size.
    """
    rng = np.random.default_rng(5)
    weights = {
        "wide": rng.normal(size=(4, channels, 3, 3)) / 3,
        "up": rng.normal(size=(classes, 4, 1, 1) if half else (4, classes, 2, 2)),
        "bias": rng.normal(size=classes) / 4,
    }
    pads = [1, 1, 1, 1] if padded else [0, 0, 0, 0]
    nodes = [
        helper.make_node("Conv", ["image", "wide"], ["features"], pads=pads),
        helper.make_node("MaxPool", ["features"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node(
            "Conv" if half else "ConvTranspose",
            ["pooled", "up", "bias"],
            ["logits"],
            strides=[1, 1] if half else [2, 2],
        ),
    ]
    kind = {"axis": 1} if ending == "Softmax" else {}
    nodes += [
        helper.make_node(ending or "Identity", ["logits"], [name], **kind) for name in outputs
    ]
    shape = ["n", channels, size or "y", size or "x"]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", classes, None, None])
                for name in outputs
            ],
            [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    if metadata is not None:
        helper.set_model_props(model, {"tile_infer": json.dumps(metadata)})
    onnx.save(model, path)
    return path


def axis(name: str, size: Any, **more: Any) -> dict[str, Any]:
    return {"type": "space", "id": name, "size": size, **more}


def channel_axis(count: int, stem: str) -> dict[str, Any]:
    return {"type": "channel", "channel_names": [f"{stem}{n}" for n in range(count)]}


FREE = {"min": 16, "step": STEP_PX}


def description(
    weights: Path | None = None,
    *,
    channels: int = 1,
    classes: tuple[str, ...] = ("probability",),
    size: Any = None,
    lost: int = 0,
    halo: int | None = 2,
    pixel: float = 1.0,
    before: list[dict[str, Any]] | None = None,
    after: list[dict[str, Any]] | None = None,
    more_outputs: tuple[str, ...] = (),
    **fields: Any,
) -> dict[str, Any]:
    """Return a description of format 0.5; of JSON it is YAML as well."""
    size = FREE if size is None else size

    def result(name: str) -> dict[str, Any]:
        rim = {} if halo is None else {"halo": halo}
        sizes = [
            axis(side, {"tensor_id": "raw", "axis_id": side, "offset": -lost}, scale=pixel, **rim)
            for side in "yx"
        ]
        names = {"type": "channel", "channel_names": list(classes)}
        return {
            "id": name,
            "axes": [{"type": "batch"}, names, *sizes],
            "test_tensor": {"source": f"{name}.npy"},
            "postprocessing": after or [],
        }

    entry: dict[str, Any] = {"source": "weights.onnx", "opset_version": 17}
    if weights is not None:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        entry |= {"source": weights.name, "sha256": digest}
    return {
        "format_version": "0.5.4",
        "type": "model",
        "name": "Tiny Network (2D)",
        "description": "a test",
        "authors": [{"name": "Someone"}],
        "cite": [{"text": "a paper", "url": "https://example.com/"}],
        "license": "MIT",
        "documentation": "README.md",
        "inputs": [
            {
                "id": "raw",
                "axes": [
                    {"type": "batch"},
                    channel_axis(channels, "c"),
                    axis("y", size),
                    axis("x", size),
                ],
                "test_tensor": {"source": "in.npy"},
                "preprocessing": before or [],
            }
        ],
        "outputs": [result(name) for name in ("prediction", *more_outputs)],
        "weights": {
            "onnx": entry,
            "pytorch_state_dict": {
                "source": "https://example.com/weights.pt",
                "parent": "onnx",
                "pytorch_version": "2.1",
                "architecture": {"callable": "Net", "import_from": "somewhere"},
            },
        },
        **fields,
    }


def old_description(weights: Path, **fields: Any) -> dict[str, Any]:
    """Return a description of format 0.4 of the same network, with z-score and sigmoid."""
    return {
        "format_version": "0.4.9",
        "type": "model",
        "name": "Tiny Network 2D",
        "description": "a test",
        "authors": [{"name": "Someone"}],
        "cite": [{"text": "a paper", "url": "https://example.com/"}],
        "license": "MIT",
        "documentation": "README.md",
        "tags": ["test"],
        "timestamp": "2022-01-01T00:00:00",
        "test_inputs": ["in.npy"],
        "test_outputs": ["out.npy"],
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"min": [1, 1, 16, 16], "step": [0, 0, STEP_PX, STEP_PX]},
                "preprocessing": [
                    {
                        "name": "zero_mean_unit_variance",
                        "kwargs": {"mode": "per_sample", "axes": "yx"},
                    }
                ],
            }
        ],
        "outputs": [
            {
                "name": "prediction",
                "axes": "bcyx",
                "data_type": "float32",
                "halo": [0, 0, 2, 2],
                "shape": {
                    "reference_tensor": "raw",
                    "scale": [1, 1, 1, 1],
                    "offset": [0, 0, 0, 0],
                },
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
        "weights": {
            "onnx": {
                "source": weights.name,
                "opset_version": 17,
                "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            }
        },
        **fields,
    }


ZSCORE = {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}
SIGMOID = {"id": "sigmoid"}


def write_folder(
    folder: Path, said: dict[str, Any] | None = None, name: str = "bioimageio.yaml"
) -> Path:
    """Write a network, unless one is there, and its description; return the description's path."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.onnx"
    if not weights.exists():
        write_network(weights)
    said = said or description(weights, before=[ZSCORE], after=[SIGMOID])
    (folder / name).write_text(json.dumps(said))
    return folder / name


def pack(folder: Path, package: Path, inside: str = "") -> Path:
    """Write a folder's files as a ``.zip``."""
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, inside + path.name)
    return package
