"""Negative controls: the same comparison fails where the tiling is a little wrong."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import tile_infer.engine.tiling as tiling
from tile_infer import Prediction, TileInferWarning, predict_large
from tile_infer.tiler.axis import AxisGrid, exact_grid, with_chunks
from tile_infer.tiler.geometry import AxisGeometry

from ..engine.test_backends import needs_openvino
from .seeded_networks import export, rarest_share, seeded, textured, unit
from .whole_pass import TOLERANCE, logit_error, whole_pass, wrong_share


def with_core(core: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the engine keep ``core`` pixels of each tile, whatever the period."""

    def grid(length: int, geometry: AxisGeometry, **_: object) -> AxisGrid:
        return with_chunks(length, geometry.size, geometry.margin_before, core, core)

    monkeypatch.setattr(tiling, "exact_grid", grid)


def found_out() -> AbstractContextManager[Any]:
    """Expect the certificate to say that the mask is wrong."""
    return pytest.warns(TileInferWarning, match="not that of one whole pass")


def logits(found: Prediction) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert found.logits is not None
    return np.asarray(found.logits, np.float32)


@pytest.mark.parametrize(
    ("core", "backend"),
    [
        *((core, "onnx") for core in (384, 368, 388, 380)),
        *(pytest.param(core, "openvino", marks=needs_openvino) for core in (384, 388)),
    ],
)
def test_a_stride_that_is_no_multiple_of_16_puts_wrong_labels(
    core: int, backend: Literal["onnx", "openvino"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = seeded(4, 0, classes=3, seed=4)
    model = export(module, tmp_path / "572.onnx", 1, (572, 572))
    image = textured(900, 1000, seed=8)
    reference = whole_pass(module, unit(image), module.shape)
    assert rarest_share(reference) >= 0.05
    with_core(core, monkeypatch)
    with found_out() if core % 16 else nullcontext():
        found = predict_large(
            image, model, output="logits", normalize="unit", workers=2, backend=backend
        )
    assert found.plan.grid.core == (core, core)
    assert found.plan.execution.backend == backend
    wrong, error = wrong_share(np.asarray(found), reference), logit_error(logits(found), reference)
    if core % 16:
        assert wrong > 0.01
        assert error > 1000 * TOLERANCE
    else:
        assert wrong == 0
        assert error <= TOLERANCE


def test_a_small_network_shows_its_textbook_stride_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = seeded(3, 0, classes=2)
    model = export(module, tmp_path / "188.onnx", 1, (188, 188))
    image = textured(300, 410)
    with_core(100, monkeypatch)  # all of the output; 100 = 4 mod 8
    with found_out():
        found = predict_large(image, model, normalize="unit", workers=2)
    assert wrong_share(np.asarray(found), whole_pass(module, unit(image), module.shape)) > 0.01


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_half_the_halo_is_not_exact(form: str, tmp_path: Path) -> None:
    module = seeded(3, 1, classes=3)
    model = module if form == "torch" else export(module, tmp_path / "same.onnx", 1, (256, 256))
    image = textured(300, 410)
    reference = whole_pass(module, unit(image), module.shape)
    halo = module.shape.padding_reach
    errors = []
    for given in (halo, halo // 2):
        with pytest.warns(TileInferWarning, match="as asked"):
            found = predict_large(
                image, model, output="logits", normalize="unit", workers=2, halo=given
            )
        errors.append(logit_error(logits(found), reference))
    assert errors[0] <= TOLERANCE < errors[1]


def test_a_halo_taken_literally_loses_the_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    module = seeded(3, 1, classes=3)
    image = textured(300, 410)
    reference = whole_pass(module, unit(image), module.shape)

    def grid(length: int, geometry: AxisGeometry, *, core_limit: int, tile: int | None) -> AxisGrid:
        good = exact_grid(length, geometry, core_limit=core_limit, tile=tile)
        return replace(good, lead=geometry.halo_before, tile=good.tile + 8)

    monkeypatch.setattr(tiling, "exact_grid", grid)
    with found_out():
        found = predict_large(image, module, normalize="unit", workers=2)
    assert found.plan.grid.y.lead == 46
    assert wrong_share(np.asarray(found), reference) > 0.01


def test_a_mirror_that_repeats_the_edge_pixel_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    module = seeded(2, 0, classes=3)
    image = unit(textured(60, 70))
    symmetric = np.pad(image, ((40, 40), (40, 40), (0, 0)), mode="symmetric")
    wrong = whole_pass(module, symmetric, module.shape)[:, 40:100, 40:110]
    found = predict_large(image, module, output="logits", workers=2)
    assert logit_error(logits(found), whole_pass(module, image, module.shape)) <= TOLERANCE
    assert logit_error(logits(found), wrong) > 1000 * TOLERANCE
