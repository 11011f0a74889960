"""Tiles that OpenVINO ran, against one pass of ONNX Runtime over the mirror-extended image."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from tile_infer import predict_large

from ..engine.test_backends import needs_openvino
from .seeded_networks import export, rarest_share, seeded, textured, unit
from .whole_pass import assert_whole_pass, whole_pass

pytestmark = needs_openvino


@pytest.mark.parametrize(
    ("depth", "padding", "channels", "classes", "tile", "fixed", "dtype", "normalize"),
    [
        (3, 0, 2, 3, (188, 140), False, "uint8", "zscore"),
        (3, 0, 1, 1, (140, 188), False, "uint16", "unit"),
        (3, 0, 1, 3, (188, 188), True, "float32", "zscore"),
        (3, 1, 3, 2, (192, 256), False, "uint8", "unit"),
        (3, 1, 1, 3, (256, 256), True, "uint16", "zscore"),
    ],
)
def test_openvino_gives_one_whole_pass_of_onnx_runtime(
    depth: int,
    padding: int,
    channels: int,
    classes: int,
    tile: tuple[int, int],
    fixed: bool,
    dtype: str,
    normalize: Literal["unit", "zscore"],
    tmp_path: Path,
) -> None:
    module = seeded(depth, padding, channels, classes)
    whole = export(module, tmp_path / "whole.onnx", channels)
    session = onnxruntime.InferenceSession(str(whole), providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": pixels.numpy()})[0])

    image = textured(300, 261, channels, dtype)
    pixels = unit(image)
    if normalize == "zscore":
        exact = image.astype(np.float64)
        pixels = ((exact - exact.mean(axis=(0, 1))) / exact.std(axis=(0, 1))).astype(np.float32)
    reference = whole_pass(run, pixels, module.shape)

    found = predict_large(
        image,
        export(module, tmp_path / "tiles.onnx", channels, tile if fixed else None),
        normalize=normalize,
        tile=tile,
        output="logits",
        workers=2,
        backend="openvino",
    )
    assert found.plan.exact
    assert found.plan.grid.tiles > 1
    assert rarest_share(reference) >= 0.02
    assert_whole_pass(found.logits, found, reference)
