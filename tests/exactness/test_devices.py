"""The same on every device: one suite, here on the CPU, and on a GPU where one is."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tile_infer import DeviceError, predict_large

from .seeded_networks import export, rarest_share, seeded, textured, unit
from .whole_pass import assert_whole_pass, mirrored, whole_pass

Kind = Literal["module", "file", "file, by Torch"]
Precision = Literal["tf32", "bf16", "fp16"]
KINDS: tuple[Kind, ...] = ("module", "file", "file, by Torch")

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=on_a_gpu)]
PRECISIONS = [
    ("cpu", "bf16"),
    *(pytest.param("cuda", each, marks=on_a_gpu) for each in ("tf32", "bf16", "fp16")),
]
AROUND = 400
"""Pixels of the mirrored image around it: more than any tile sees."""

NUMBERS = {"tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("padding", [0, 1], ids=["valid", "same"])
def test_the_mask_is_that_of_one_whole_pass_on_a_cpu(
    kind: Kind, device: str, padding: int, tmp_path: Path
) -> None:
    network, image = seeded(3, padding, 2, classes=3), textured(430, 511, 2, seed=3)
    model: Any = network
    if kind != "module":
        model = export(network, tmp_path / "network.onnx", 2)
    backend = {"module": None, "file": "onnx", "file, by Torch": "torch"}[kind]
    tile = (188, 188) if padding == 0 else (192, 192)
    options: dict[str, Any] = {"device": device, "backend": backend, "batch_size": 3}
    try:
        found = predict_large(image, model, output="logits", tile=tile, **options)
    except DeviceError as error:
        if (kind, device) != ("file", "cuda"):
            raise
        pytest.skip(f"ONNX Runtime has no CUDA here: {error}")
    assert found.plan.execution.device.partition(":")[0] == device
    assert found.plan.execution.backend == ("onnx" if kind == "file" else "torch")
    reference = whole_pass(network, unit(image), network.shape)
    assert rarest_share(reference) >= 0.05
    assert_whole_pass(found.logits, found, reference)


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
@pytest.mark.parametrize("by", ["module", "file, by Torch"])
def test_each_tile_is_what_the_network_gives_for_it_in_that_precision(
    by: Kind, device: str, precision: Precision, tmp_path: Path
) -> None:
    network, image = seeded(3, 0, 2, classes=3), textured(430, 511, 2, seed=3)
    model: Any = network if by == "module" else export(network, tmp_path / "network.onnx", 2)
    options: dict[str, Any] = {} if by == "module" else {"backend": "torch"}
    options |= {"tile": (188, 188), "device": device, "precision": precision}
    found = predict_large(image, model, output="logits", **options)
    assert found.plan.execution.precision == precision
    assert found.logits is not None
    logits = np.asarray(found.logits)
    grid, (top, left) = found.plan.grid, found.plan.recipe.crop
    alone, exact, beside = (np.zeros_like(logits) for _ in range(3))
    for place in grid.tiles_over(grid.block_box(0)):
        fed, box = grid.tile_box(place), grid.window_box(place)
        rows, columns = (
            mirrored(length, AROUND, AROUND)[side.start + AROUND : side.stop + AROUND]
            for length, side in zip(image.shape, fed, strict=False)
        )
        tile = unit(image)[rows][:, columns]
        for kept, numbers in ((alone, precision), (exact, "fp32")):
            target = kept[:, box.y.start : box.y.stop, box.x.start : box.x.stop]
            one = _run(network, tile, device, numbers)[:, top:, left:]
            target[:] = one[:, : target.shape[1], : target.shape[2]]
    beside[:, :, 1:] = alone[:, :, :-1]
    rounding = abs(alone - exact).max()
    assert rounding > 1e-4 * abs(exact).max(), "it was fp32 that ran"
    assert abs(logits - alone).max() <= 1.5 * rounding
    assert abs(logits - exact).max() > 0.2 * rounding, "the engine ran in fp32"
    # The wrong place is told from the rounding.
    assert abs(logits - beside).max() > 5 * rounding


def _run(
    network: torch.nn.Module, tile: NDArray[np.floating], device: str, precision: str
) -> NDArray[np.float32]:
    """Return what a network gives for one tile ``(y, x, channel)``."""
    images = torch.from_numpy(tile.transpose(2, 0, 1)[None].astype(np.float32)).to(device)
    number = NUMBERS.get(precision, torch.float32)
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    with (
        torch.inference_mode(),
        torch.autocast(device, number, enabled=number != torch.float32),
    ):
        found: NDArray[np.float32] = network.to(device)(images)[0].float().cpu().numpy()
    network.to("cpu")
    return found
