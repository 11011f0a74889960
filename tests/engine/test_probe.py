"""The probe against networks whose geometry is worked out by hand, and against real ones.

The halo of a same-padded U-Net, by hand: 2 rows are spoiled by two padded convolutions; a pooling
makes s rows ceil(s / pool), two convolutions s + 2; a transposed convolution makes pool * s, two
convolutions again s + 2. Its margin without padding: 2 * (2 + 4 + ...) per side and level.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from torch import nn

from tile_infer.engine.probe import Probe, Verdict, probe
from tile_infer.tiler.errors import ModelError
from tile_infer.tiler.geometry import AxisGeometry

from .probe_networks import (
    AlignCorners,
    Around,
    Bilinear,
    ConstantClass,
    ConstantOutput,
    Run,
    SqueezeExcite,
    UNet,
    as_function,
    convolutions,
)

FREE = (None, None)
DATA = Path(
    os.environ.get(
        "TILE_INFER_TEST_DATA", str(Path(__file__).resolve().parents[2] / "../shared/data")
    )
)


def spoiled_by_padding(depth: int, pool: int) -> int:
    rows = 2
    for _ in range(depth):
        rows = -(-rows // pool) + 2
    for _ in range(depth):
        rows = rows * pool + 2
    return rows


def noise(height: int, width: int, seed: int = 7) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, 1, height, width), dtype=np.float32)


def tiled_error(
    run: Run,
    y: AxisGeometry,
    x: AxisGeometry,
    tile: tuple[int, int],
    at: tuple[int, int],
    side: int,
) -> float:
    """Return the error of one tile's core inside a whole pass over ``side`` pixels."""
    image = noise(side, side)
    whole = run(image)[0]
    output = run(image[:, :, at[0] : at[0] + tile[0], at[1] : at[1] + tile[1]])[0]
    height, width = (n - a.halo_after for n, a in zip(output.shape[1:], (y, x), strict=True))
    core = output[:, y.halo_before : height, x.halo_before : width]
    top, left = at[0] + y.halo_before, at[1] + x.halo_before
    expected = whole[:, top : top + core.shape[1], left : left + core.shape[2]]
    assert core.size
    assert core.shape == expected.shape
    return float(np.abs(core - expected).max() / np.abs(whole).max())


@pytest.mark.parametrize(("depth", "margin"), [(2, 20), (3, 44), (4, 92)])
def test_valid_unet_keeps_only_the_class_of_sizes_that_loses_least(depth: int, margin: int) -> None:
    found = probe(as_function(UNet(depth)), 1, FREE)
    period = 2**depth
    expected = AxisGeometry(2 * margin + 4, period, period, margin, margin)
    assert found.verdict == "bounded"
    assert (found.geometry.y, found.geometry.x) == (expected, expected)
    assert found.classes == 2


def test_sizes_that_run_silently_and_are_wrong_are_not_taken() -> None:
    run = as_function(UNet(4))
    axis = probe(run, 1, FREE).geometry.y
    assert [n for n in range(572, 589) if axis.takes(n)] == [572, 588]
    # Why not 268 + 8: the same origin, inside the same output, gives other logits.
    image = noise(284, 284)
    good, wrong = run(image[:, :, :268, :268])[0], run(image[:, :, :276, :276])[0]
    whole = run(image)[0]
    assert wrong.shape == good.shape
    largest = np.abs(whole).max()
    assert np.abs(good - whole[:, : good.shape[1], : good.shape[2]]).max() < 1e-5 * largest
    assert np.abs(wrong - whole[:, : wrong.shape[1], : wrong.shape[2]]).max() > 0.1 * largest


@pytest.mark.parametrize(("depth", "pool"), [(2, 2), (3, 2), (4, 2), (1, 3), (2, 3)])
def test_same_padded_unet_has_the_halo_worked_out_by_hand(depth: int, pool: int) -> None:
    axis = probe(as_function(UNet(depth, padding=1, pool=pool)), 1, FREE).geometry.y
    halo = spoiled_by_padding(depth, pool)
    assert (axis.halo_before, axis.halo_after) == (halo, halo)
    assert (axis.period, axis.step, axis.lost) == (pool**depth, pool**depth, 0)


@pytest.mark.parametrize(
    ("run", "period", "margin", "halo"),
    [
        pytest.param(as_function(convolutions(*[5] * 7)), 1, 14, 0, id="29 x 29 valid"),
        pytest.param(
            as_function(convolutions(3, 3, padding=4, dilation=4)), 1, 0, 8, id="dilated by 4 twice"
        ),
        pytest.param(  # 1 row; 1 of 7; 2 low rows are 14; 15
            as_function(Around(nn.Conv2d(4, 4, 7, stride=7), (7, 7))), 7, 0, 15, id="window of 7"
        ),
        pytest.param(  # 1 row; 1 of 2; 2 low rows are 4; 5
            as_function(Around(nn.MaxPool2d(2, ceil_mode=True), (2, 2))), 2, 0, 5, id="ceil mode"
        ),
    ],
)
def test_period_margin_and_halo_of_small_networks(
    run: Run, period: int, margin: int, halo: int
) -> None:
    found = probe(run, 1, FREE)
    assert found.bounded
    for axis in (found.geometry.y, found.geometry.x):
        assert (axis.period, axis.margin_before, axis.margin_after) == (period, margin, margin)
        assert (axis.halo_before, axis.halo_after) == (halo, halo)


def test_pooling_along_x_alone_gives_period_1_along_y() -> None:
    geometry = probe(as_function(Around(nn.MaxPool2d((1, 2)), (1, 2))), 1, FREE).geometry
    assert (geometry.y.period, geometry.x.period) == (1, 2)
    assert (geometry.y.halo_before, geometry.x.halo_before) == (3, 5)


def test_stride_2_stem_has_a_larger_halo_before_than_after() -> None:
    # Window j covers rows 2j - 1 to 2j + 1: padding spoils the first window and not the last.
    # 1, 2 low rows, 4 rows, 5; at the end 0, 1 low row, 2 rows, 3.
    net = Around(nn.Conv2d(4, 4, 3, stride=2, padding=1), (2, 2))
    net.first = nn.Conv2d(1, 4, 1)
    axis = probe(as_function(net), 1, (64, 64)).geometry.y
    assert (axis.period, axis.halo_before, axis.halo_after) == (2, 5, 3)


@pytest.mark.parametrize("depth", [3, 5, 6])
def test_resizing_network_has_the_halo_worked_out_by_hand(depth: int) -> None:
    # Before: padding spoils window 0 of every stem; s rows become 2s + 1 by bilinear resizing,
    # 2s + 2 by the convolution. After: nothing, until the first resizing clamps 1 row.
    before, after = 1, 0
    for _ in range(depth):
        before, after = 2 * before + 2, 2 * after + 2
    axis = probe(as_function(Bilinear(depth)), 1, FREE).geometry.y
    assert (axis.period, axis.halo_before, axis.halo_after) == (2**depth, before, after)


@pytest.mark.parametrize("depth", [2, 3])
def test_what_is_left_beyond_the_halo_equals_a_whole_pass(depth: int) -> None:
    run = as_function(UNet(depth, padding=1))
    geometry = probe(run, 1, FREE).geometry
    period, side = geometry.y.period, 256
    at, tile = (8 * period, 3 * period), (128, 160)
    assert tiled_error(run, geometry.y, geometry.x, tile, at, side) < 1e-5
    # Negative controls: half the halo, and an origin of another phase.
    half = AxisGeometry(period, period, period, 0, 0, geometry.y.halo_before // 2, 1)
    assert tiled_error(run, half, geometry.x, tile, at, side) > 1e-3
    other_phase = (at[0] + period // 2, at[1])
    assert tiled_error(run, geometry.y, geometry.x, tile, other_phase, side) > 1e-3


def test_fixed_rectangle_is_measured_at_its_only_size() -> None:
    geometry = probe(as_function(convolutions(*[5] * 7)), 1, (64, 80)).geometry
    assert geometry.y == AxisGeometry(64, 0, 1, 14, 14)
    assert geometry.x == AxisGeometry(80, 0, 1, 14, 14)


def test_network_that_refuses_most_sizes_has_a_step_larger_than_its_period() -> None:
    inner = as_function(UNet(3, padding=1))

    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if tiles.shape[2] % 24 or tiles.shape[3] % 24 or tiles.shape[2] < 48:
            raise RuntimeError("bad size")
        return inner(tiles)

    axis = probe(run, 1, FREE).geometry.y
    assert (axis.size, axis.step, axis.period) == (48, 24, 8)


def test_network_that_refuses_all_sizes_but_one_counts_as_fixed() -> None:
    inner = as_function(UNet(3, padding=1))

    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if tiles.shape[2:] != (240, 240):
            raise RuntimeError("bad size")
        return inner(tiles)

    axis = probe(run, 1, FREE).geometry.y
    assert axis == AxisGeometry(240, 0, 8, 0, 0, 46, 46)


@pytest.mark.parametrize(
    ("net", "fixed", "verdict"),
    [
        pytest.param(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 3)),
            FREE,
            "unbounded",
            id="instance norm",
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3)),
            (128, 128),
            "unbounded",
            id="group norm",
        ),
        pytest.param(SqueezeExcite(), FREE, "unbounded", id="squeeze and excitation"),
        pytest.param(SqueezeExcite(), (128, 128), "unbounded", id="squeeze, fixed"),
        pytest.param(AlignCorners(), FREE, "position_dependent", id="align corners"),
        pytest.param(AlignCorners(), (128, 96), "position_dependent", id="align corners, fixed"),
        pytest.param(UNet(4, padding=1), (96, 96), "does_not_fit", id="halo 94 in 96 px"),
        pytest.param(UNet(4), (188, 188), "does_not_fit", id="output of 4 px"),
        pytest.param(
            convolutions(3, 3, padding=100, dilation=100), (128, 128), "does_not_fit", id="all sky"
        ),
    ],
)
def test_networks_that_cannot_be_tiled_exactly_are_told_apart(
    net: nn.Module, fixed: tuple[int | None, int | None], verdict: Verdict
) -> None:
    found = probe(as_function(net), 1, fixed)
    assert found.verdict == verdict
    assert not found.bounded
    assert (found.geometry.y.halo_before, found.geometry.x.halo_after) == (0, 0)


def test_network_too_far_sighted_for_256_px_is_bounded_at_512() -> None:
    found = probe(as_function(convolutions(*[3] * 4, padding=32, dilation=32)), 1, FREE)
    assert found.bounded
    assert found.geometry.y.halo_before == 128


def test_stated_tolerance_gives_a_smaller_halo_and_is_recorded() -> None:
    # Nine padded convolutions with a weak rim: what the border does fades with depth.
    net = convolutions(*[3] * 9, padding=1)
    run = as_function(net)
    exact, stated = probe(run, 1, FREE), probe(run, 1, FREE, tolerance=0.02)
    assert (exact.geometry.y.halo_before, exact.tolerance) == (9, None)
    assert 0 < stated.geometry.y.halo_before < 9
    assert stated.tolerance == 0.02
    assert 1e-5 < stated.disagreement <= 0.02


def test_a_class_that_is_constant_by_design_leaves_the_others_to_measure() -> None:
    found = probe(as_function(ConstantClass()), 1, FREE)
    assert found.bounded
    assert found.classes == 2
    assert (found.geometry.y.halo_before, found.geometry.y.period) == (1, 1)


@pytest.mark.parametrize(
    ("net", "fixed", "text"),
    [
        (ConstantOutput(), FREE, "constant on noise"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2)), FREE, "per 2 tile"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), (128, 128), "per 2 tile"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=2)), FREE, "scale 2"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1)), FREE, "1 x 1 px"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (32, 32), r"got shape \(1, 1800\)"),
        (nn.Conv2d(3, 2, 3), FREE, "took no tile"),
    ],
)
def test_what_is_not_a_map_of_the_tile_is_refused(
    net: nn.Module, fixed: tuple[int | None, int | None], text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        probe(as_function(net), 1, fixed)


def test_probe_of_one_seed_is_repeatable_and_survives_json() -> None:
    run = as_function(UNet(2, padding=1))
    one, two = probe(run, 1, FREE, seed=3), probe(run, 1, FREE, seed=3)
    assert one == two
    assert json.loads(json.dumps(asdict(one))) == asdict(two)
    assert probe(run, 1, FREE, seed=4).geometry == one.geometry


def onnx_function(path: str) -> Run:
    file = DATA / "models" / path
    if not file.exists():
        pytest.skip(f"no test data: {file} is absent; set TILE_INFER_TEST_DATA")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(
        str(file), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        output: NDArray[np.float32] = session.run(None, {name: tiles})[0]
        return output

    return run


@pytest.mark.parametrize(
    ("path", "channels", "size", "period", "halo"),
    [
        ("bioimageio_unet2d_nuclei_broad/weights.onnx", 1, 512, 8, 53),
        ("sed_gen_unet/unet.onnx", 1, 224, 4, 22),
    ],
)
def test_trained_unets_are_bounded(
    path: str, channels: int, size: int, period: int, halo: int
) -> None:
    found: Probe = probe(onnx_function(path), channels, (size, size))
    assert found.geometry.y == found.geometry.x
    assert found.geometry.y == AxisGeometry(size, 0, period, 0, 0, halo, halo)


def test_trained_network_with_pooling_of_the_whole_tile_is_unbounded() -> None:
    found = probe(onnx_function("portrait_seg/SINet.onnx"), 3, (320, 320))
    assert (found.verdict, found.geometry.y.fixed) == ("unbounded", True)
    assert found.disagreement > 0.01
