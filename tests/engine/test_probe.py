"""The probe against networks whose geometry is worked out by hand, and against real ones.

The halo of a same-padded U-Net, by hand: 2 rows are spoiled by two padded convolutions; a pooling
makes s rows ceil(s / pool), two convolutions s + 2; a transposed convolution makes pool * s, two
convolutions again s + 2. Its margin without padding: 2 * (2 + 4 + ...) per side and level.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from torch import nn

from tile_infer.engine.backends.base import Network, NetworkFacts
from tile_infer.engine.inspection import inspect
from tile_infer.engine.probe import Probe, Verdict, probe
from tile_infer.engine.probe_bench import Bench
from tile_infer.engine.probe_period import ROUNDING, Shifts
from tile_infer.engine.settings import Settings
from tile_infer.tiler.errors import ModelError
from tile_infer.tiler.geometry import AxisGeometry

from .probe_networks import (
    AlignCorners,
    Around,
    Bilinear,
    ConstantClass,
    ConstantOutput,
    Crop,
    FlatOnly,
    Run,
    SqueezeExcite,
    UNet,
    as_function,
    convolutions,
    untrained,
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


def taking_only(run: Run, takes: Callable[[int, int], bool]) -> Run:
    def picky(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        if not takes(*tiles.shape[2:]):
            raise RuntimeError("bad size\nand a long story")
        return run(tiles)

    return picky


def test_period_is_a_multiple_of_what_the_allowed_sizes_show() -> None:
    inner = as_function(UNet(3, padding=1))
    run = taking_only(inner, lambda h, w: h % 24 == w % 24 == 0 and h >= 48)
    axis = probe(run, 1, FREE).geometry.y
    assert (axis.size, axis.step, axis.period) == (48, 24, 24)
    assert probe(inner, 1, FREE).geometry.y.period == 8  # not the sizes', but no harm


def test_network_that_refuses_all_sizes_but_one_counts_as_fixed() -> None:
    run = taking_only(as_function(UNet(3, padding=1)), lambda h, w: h == w == 240)
    axis = probe(run, 1, FREE).geometry.y
    assert axis == AxisGeometry(240, 0, 8, 0, 0, 46, 46)


def test_size_stated_by_the_user_is_tried_last() -> None:
    run = taking_only(as_function(UNet(2, padding=1)), lambda h, w: (h, w) == (96, 104))
    geometry = probe(run, 1, FREE, tile=(96, 104)).geometry
    assert geometry.y == AxisGeometry(96, 0, 4, 0, 0, 22, 22)
    assert geometry.x == AxisGeometry(104, 0, 4, 0, 0, 22, 22)
    with pytest.raises(ModelError, match=r"took no tile of 64 to 1024 px \(bad size\); "):
        probe(run, 1, FREE)


def test_tile_of_the_settings_is_tried() -> None:
    facts = NetworkFacts("n", "0", "torch", 1, FREE, None, "0", "none")
    run = taking_only(as_function(convolutions(3, 3)), lambda h, w: h == w == 100)
    network = cast(Network, SimpleNamespace(facts=facts, logits=run))
    assert inspect(network, Settings(tile=(100, 100))).geometry.y == AxisGeometry(100, 0, 1, 2, 2)
    with pytest.raises(ModelError, match="took no tile"):
        inspect(network, Settings())


@pytest.mark.parametrize("seed", range(3))
def test_deep_layers_that_hardly_count_still_set_the_period(seed: int) -> None:
    run = untrained(lambda: UNet(4, padding=1, base=8), seed)
    geometry = probe(run, 1, (256, 256)).geometry
    assert (geometry.y.period, geometry.x.period) == (16, 16)
    # Why rounding is no measure: half the period, which is wrong, agrees to it.
    shifts = Shifts(Bench(run, 1, 0), (256, 256), None)
    assert 0 < shifts.disagreement((8, 8))[-1] < ROUNDING


def test_deep_layers_that_noise_cannot_show_are_known_by_the_sizes() -> None:
    net = UNet(3)
    run = as_function(net)
    net.up[0].get_parameter("weight").data *= 1e-9
    axis = probe(run, 1, FREE).geometry.y
    assert (axis.size, axis.step, axis.period, axis.lost) == (92, 8, 8, 88)
    # Negative control: without other sizes there is nothing to see.
    assert probe(run, 1, (252, 252)).geometry.y.period == 1


def test_branch_that_works_only_in_flat_areas_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    run = as_function(FlatOnly())
    axis = probe(run, 1, (256, 256)).geometry.y
    assert axis.period == 8
    assert axis.halo_before >= 8
    monkeypatch.setattr("tile_infer.engine.probe_bench._flatten", lambda *_: None)
    axis = probe(run, 1, (256, 256)).geometry.y
    assert (axis.period, axis.halo_before) == (1, 0)


@pytest.mark.parametrize(
    ("inner", "before", "after", "margins", "halos"),
    [
        pytest.param(nn.Identity(), 8, 0, (8, 0), (0, 0), id="first 8 cropped"),
        pytest.param(nn.Identity(), 1, 20, (1, 20), (0, 0), id="last 20 cropped"),
        pytest.param(nn.Identity(), 4, 4, (4, 4), (0, 0), id="both"),
        pytest.param(convolutions(3, 3, padding=1), 8, 0, (8, 0), (0, 2), id="same-padded"),
        pytest.param(convolutions(3, 3), 12, 0, (14, 2), (0, 0), id="valid"),
        pytest.param(convolutions(3, 3), 3, 3, (5, 5), (0, 0), id="valid, both"),
    ],
)
def test_output_off_the_middle_has_two_margins(
    inner: nn.Module, before: int, after: int, margins: tuple[int, int], halos: tuple[int, int]
) -> None:
    geometry = probe(as_function(Crop(inner, before, after)), 1, FREE).geometry
    for axis in (geometry.y, geometry.x):
        assert (axis.margin_before, axis.margin_after) == margins
        assert (axis.halo_before, axis.halo_after) == halos


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
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1)), FREE, "1 x 1 px"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (32, 32), r"got shape \(1, 1800\)"),
        (nn.Conv2d(3, 2, 3), FREE, r"took no tile of 64 to 1024 px \(Given groups=1"),
        (nn.Conv2d(1, 2, 3).half(), FREE, r"took no tile .* \(Input type \(float\)"),
    ],
)
def test_what_is_not_a_map_of_the_tile_is_refused(
    net: nn.Module, fixed: tuple[int | None, int | None], text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        probe(as_function(net), 1, fixed)


def test_a_network_that_throws_dice_is_refused() -> None:
    dice, run = np.random.default_rng(0), as_function(nn.Conv2d(1, 2, 3))

    def random(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = run(tiles)
        noise = 1e-3 * dice.standard_normal(logits.shape)
        return np.asarray(logits + noise, np.float32)

    with pytest.raises(ModelError, match="answer alike each time"):
        probe(random, 1, FREE)


def test_probe_of_one_seed_is_repeatable_and_survives_json() -> None:
    run = as_function(UNet(2, padding=1))
    one, two = probe(run, 1, FREE, seed=3), probe(run, 1, FREE, seed=3)
    assert one == two
    assert json.loads(json.dumps(asdict(one), allow_nan=False)) == asdict(two)
    assert probe(run, 1, FREE, seed=4).geometry == one.geometry


@pytest.mark.parametrize(
    ("end", "inside"),
    [(nn.Softmax(dim=1), True), (nn.Sigmoid(), True), (nn.ReLU(), False)],
    ids=["softmax", "sigmoid", "ReLU"],
)
def test_range_of_the_logits_shows_probabilities(end: nn.Module, inside: bool) -> None:
    found = probe(as_function(nn.Sequential(nn.Conv2d(1, 2, 3), end)), 1, FREE)
    assert not found.whole_numbers
    assert 0 <= found.lowest < found.highest
    assert (found.highest <= 1) == inside


def test_range_of_the_logits_is_that_of_all_runs() -> None:
    seen: list[float] = []

    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.extend((float(tiles.min()), float(tiles.max())))
        return tiles

    found = probe(run, 1, FREE)
    assert (found.lowest, found.highest) == (min(seen), max(seen))
    assert found.lowest < -100  # that of raw bytes
    assert not found.whole_numbers


def test_labels_show_as_whole_numbers() -> None:
    run = as_function(nn.Conv2d(1, 2, 3))
    found = probe(lambda tiles: (run(tiles) > 0).astype(np.float32), 1, FREE)
    assert found.whole_numbers


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
