"""Pixels without data are normal input: filled by a rule, and labelled "not computed"."""

import json
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from tile_infer import (
    OutputError,
    Plan,
    Prediction,
    SettingError,
    plan_prediction,
    predict_large,
)
from tile_infer.engine.nodata import empty_of_mask, fill_missing
from tile_infer.engine.normalize import Normalization, full_scale, largest_input
from tile_infer.engine.sources import open_source
from tile_infer.engine.statistics import mean_and_deviation, percentiles, sampled_range
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import NumericError
from tile_infer.tiler.scale import Scale

from .geotiffs import write_geotiff

NAN = float("nan")
RECIPE = plan_prediction(np.zeros((9, 9, 3), np.uint8), nn.Conv2d(3, 2, 3), workers=1).recipe


def textured(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    pixels = np.random.default_rng(7).integers(1, 255, shape)
    return (pixels / 255).astype(dtype) if dtype.startswith("float") else pixels.astype(dtype)


def network(channels: int = 1, classes: int = 3) -> nn.Module:
    torch.manual_seed(3)
    return nn.Conv2d(channels, classes, 5)


@pytest.mark.parametrize(
    ("dtype", "offset", "fill"),
    [
        ("uint8", 123.675, 124),
        ("uint8", 300.0, 255),
        ("int16", -7.4, -7),
        ("uint16", -1.0, 0),
        ("float32", 0.485, np.float32(0.485)),
        ("bool", 0.7, True),
    ],
)
def test_a_value_without_data_becomes_what_normalisation_turns_into_zero(
    dtype: str, offset: float, fill: object
) -> None:
    pixels = np.array([[[1], [0]]]).astype(dtype)
    found, empty = fill_missing(pixels, 1.0, replace(RECIPE, offset=(offset,)))
    assert found.dtype == dtype
    assert (found[0, 0, 0], found[0, 1, 0]) == (fill, 0)
    assert empty is not None
    assert empty.tolist() == [[True, False]]


def test_each_channel_is_filled_alone_and_a_pixel_is_empty_where_all_are() -> None:
    pixels = np.array([[[9, 9, 9], [9, 1, 9], [1, 2, 3]]], np.uint8)
    found, empty = fill_missing(pixels, 9.0, replace(RECIPE, offset=(10.0, 20.0, 30.0)))
    assert found.tolist() == [[[10, 20, 30], [10, 1, 30], [1, 2, 3]]]
    assert empty is not None
    assert empty.tolist() == [[True, False, False]]


def test_a_pixel_with_data_in_the_last_channel_alone_is_not_empty() -> None:
    pixels = np.array([[[9, 9, 1]]], np.uint8)
    assert fill_missing(pixels, 9.0, replace(RECIPE, offset=(0.0,) * 3))[1] is None


@pytest.mark.parametrize("nodata", [None, 9.0])
def test_nan_holds_no_data_whatever_value_does_too(nodata: float | None) -> None:
    pixels = np.array([[[NAN], [9.0], [np.inf], [0.5]]], np.float32)
    found, empty = fill_missing(pixels, nodata, replace(RECIPE, offset=(0.25,)))
    filled = 9.0 if nodata is None else 0.25
    np.testing.assert_array_equal(found[0, :, 0], np.array([0.25, filled, np.inf, 0.5], "f4"))
    assert empty is not None
    assert empty.tolist() == [[True, nodata is not None, False, False]]


def test_pixels_that_may_not_be_changed_are_copied() -> None:
    pixels = np.array([[[9]]], np.uint8)
    pixels.flags.writeable = False
    found, _ = fill_missing(pixels, 9.0, replace(RECIPE, offset=(1.0,)))
    assert (found.item(), pixels.item()) == (1, 9)


@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    scale=st.sampled_from([Scale(), Scale(2), Scale(3), Scale(1, 2), Scale(1, 3), Scale(1, 4)]),
    data=st.data(),
)
def test_a_pixel_of_the_mask_is_empty_where_all_that_it_covers_is(
    size: tuple[int, int], scale: Scale, data: st.DataObject
) -> None:
    image = np.random.default_rng(data.draw(st.integers(0, 99))).random(size) < 0.8
    whole = scale.mask_px(size[0]), scale.mask_px(size[1])
    expected = np.zeros(whole, np.bool_)
    ratio = Fraction(scale.up, scale.down)
    covered = [
        [
            [n for n in range(length) if n * ratio < i + 1 and (n + 1) * ratio > i]
            for i in range(count)
        ]
        for count, length in zip(whole, size, strict=True)
    ]
    for y, x in np.ndindex(expected.shape):
        rows, columns = covered[0][y], covered[1][x]
        expected[y, x] = image[np.ix_(rows, columns)].all()
    y0, x0 = (data.draw(st.integers(0, length - 1)) for length in whole)
    y1, x1 = (data.draw(st.integers(a + 1, b)) for a, b in zip((y0, x0), whole, strict=True))
    box = Box.of(y0, y1, x0, x1)
    # What is read begins somewhere before, and ends somewhere after, what the box covers.
    top, left = (data.draw(st.integers(0, int(start / ratio))) for start in (y0, x0))
    region = Box.of(top, size[0], left, size[1])
    found = empty_of_mask(image[top:, left:], region, box, scale)
    wanted = expected[y0:y1, x0:x1]
    assert (np.zeros_like(wanted) if found is None else found).tolist() == wanted.tolist()


@pytest.mark.parametrize("options", [{}, {"blend": "hann", "tile": (36, 36)}], ids=str)
@pytest.mark.parametrize(
    ("dtype", "hole", "given_", "normalize"),
    [
        ("float32", NAN, None, "none"),
        ("float32", -9999.0, -9999.0, "zscore"),
        ("uint8", 0, 0.0, "imagenet"),
        ("int16", -5, -5.0, "percentile"),
    ],
)
def test_the_mask_is_that_of_the_filled_image_without_its_holes(
    dtype: str, hole: float, given_: float | None, normalize: Any, options: dict[str, Any]
) -> None:
    width = 300 if options else 2500  # several blocks where nothing is blended
    image = textured(60, width, 3, dtype=dtype)
    empty = np.zeros(image.shape[:2], np.bool_)
    empty[10:30, 15:90] = empty[:, -70:] = empty[59, :] = True
    image[empty] = hole
    image[40, 40:45, 1] = hole  # the other channels hold data
    module = network(3)
    options = {"normalize": normalize, "output": "probabilities", "workers": 2} | options
    found = predict_large(image, module, nodata=given_, **options)
    recipe = found.plan.recipe
    filled = image.copy()
    for channel, offset in enumerate(recipe.offset):
        part = filled[..., channel]
        kind = np.dtype(dtype)
        part[np.isnan(part) | (part == hole)] = kind.type(
            offset if kind.kind == "f" else round(offset)
        )
    full = full_scale(dtype)
    mean = tuple(offset / full for offset in recipe.offset)
    std = tuple(1 / (scale * full) for scale in recipe.scale)
    options.pop("normalize")
    reference = predict_large(filled, module, mean=mean, std=std, nodata="none", **options)
    labels, expected = np.asarray(found), np.asarray(reference)
    assert (labels[empty] == 255).all()
    np.testing.assert_array_equal(labels[~empty], expected[~empty])
    assert found.probabilities is not None
    assert reference.probabilities is not None
    scores, wanted = np.asarray(found.probabilities[:]), np.asarray(reference.probabilities[:])
    assert np.isnan(scores[:, empty]).all()
    np.testing.assert_allclose(scores[:, ~empty], wanted[:, ~empty], atol=1e-3)
    assert found.report["nodata"]["pixels"] == int(empty.sum())


@pytest.mark.parametrize("up", [True, False])
def test_a_mask_of_another_resolution_is_left_out_where_all_it_covers_is(up: bool) -> None:
    torch.manual_seed(3)
    resize = nn.Upsample(scale_factor=2) if up else nn.AvgPool2d(2)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), resize)
    image = textured(61, 90, dtype="float32")
    image[11:30, 15:40] = image[60, 80:] = NAN
    labels = np.asarray(predict_large(image, module, workers=1))
    empty = np.isnan(image)
    if up:
        expected = empty.repeat(2, 0).repeat(2, 1)
    else:  # the last row covers one row of the image
        padded = np.pad(empty, ((0, 1), (0, 0)), mode="edge")
        expected = padded.reshape(31, 2, 45, 2).all(axis=(1, 3))
    np.testing.assert_array_equal(labels == 255, expected)


def test_without_the_rule_the_holes_reach_their_neighbours() -> None:
    image = textured(60, 80)
    image[20:40, 20:40] = 0
    module = network()
    options: dict[str, Any] = {"mean": (0.5,), "std": (0.25,), "workers": 1}
    left_out = np.asarray(predict_large(image, module, nodata=0, **options))
    taken = np.asarray(predict_large(image, module, nodata="none", **options))
    ring = np.zeros(image.shape, np.bool_)
    ring[18:42, 18:42], ring[20:40, 20:40] = True, False
    assert (left_out[ring] != taken[ring]).any()
    far = ~ring & (left_out != 255)
    np.testing.assert_array_equal(left_out[far], taken[far])
    assert (left_out == 255).sum() == 400
    assert not (taken == 255).any()


def test_shares_are_of_the_pixels_with_data() -> None:
    image = np.full((40, 50), 200, np.uint8)
    image[:10] = 0
    image[10:20] = 7
    report = predict_large(image, Brighter(), nodata=7, **as_is).report
    assert report["nodata"] == {"pixels": 500, "share": 0.25}
    assert [row["pixels"] for row in report["classes"]] == [500, 1000]
    assert [row["share"] for row in report["classes"]] == [0.333333, 0.666667]


def test_an_image_without_any_data_is_a_mask_without_any_label() -> None:
    image = np.full((40, 50), NAN, np.float32)
    modes: tuple[Literal["none", "zscore", "percentile"], ...] = ("none", "zscore", "percentile")
    for normalize in modes:
        found = predict_large(image, network(), normalize=normalize, workers=1)
        assert (np.asarray(found) == 255).all()
        assert found.report["nodata"] == {"pixels": 2000, "share": 1.0}
        assert {row["share"] for row in found.report["classes"]} == {0.0}


@pytest.mark.parametrize("broken", [np.inf, -np.inf])
def test_infinity_is_still_an_error_beside_nan(broken: float) -> None:
    image = textured(60, 70, dtype="float32")
    image[5, 5], image[30, 40] = NAN, broken
    with pytest.raises(NumericError, match="for 25 pixels of block 0"):
        predict_large(image, network(), workers=1)


class Brighter(nn.Module):
    """Says 1 where the pixel is above 100."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels - 100


as_is: dict[str, Any] = {"normalize": "none", "activation": "none", "threshold": 1e-9, "workers": 1}


def stopped_and_continued(image: Path, out: Path) -> Prediction:
    def stop(progress: Any) -> None:
        if progress.blocks_done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_large(image, Brighter(), out, on_progress=stop, **as_is)
    return predict_large(image, Brighter(), out, **as_is)


def test_what_was_filled_is_remembered_by_a_run_that_continues(tmp_path: Path) -> None:
    pixels = textured(40, 3000)
    pixels[:, ::10] = 0
    path = write_geotiff(tmp_path / "a.tif", [pixels], nodata="0")
    found = stopped_and_continued(path, tmp_path / "m.zarr")
    assert 0 < found.report["blocks_run"] < found.plan.grid.blocks
    assert found.report["nodata"]["pixels"] == 40 * 300
    again = predict_large(path, Brighter(), tmp_path / "m.zarr", **as_is)
    assert again.report["nodata"]["pixels"] == 40 * 300


def test_what_the_image_states_counts_and_is_said(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", [textured(30, 40)], nodata="7")
    plan = plan_prediction(path, Brighter(), **as_is)
    assert plan.nodata == 7.0
    assert any("pixels of 7 hold no data, as a.tif says" in note for note in plan.notes)
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    off = plan_prediction(path, Brighter(), nodata="none", **as_is)
    assert off.nodata is None
    assert not any("no data" in note for note in off.notes)
    assert plan_prediction(path, Brighter(), nodata=3, **as_is).nodata == 3.0


def test_a_stated_value_that_no_pixel_can_have_is_none(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", [textured(30, 40)], nodata="-9999")
    plan = plan_prediction(path, Brighter(), **as_is)
    assert (plan.nodata, plan.image.nodata) == (None, -9999.0)
    with pytest.raises(SettingError, match=r"nodata=-9999 .* uint8 pixels, which never hold it"):
        plan_prediction(path, Brighter(), nodata=-9999, **as_is)


@pytest.mark.parametrize(
    ("dtype", "stated", "stored"),
    [
        ("float32", -3.40282346638529e38, float(np.finfo("f4").min)),  # GDAL's 15 digits
        ("float32", 0.1, float(np.float32(0.1))),
        ("float64", 0.1, 0.1),
        ("uint64", 18446744073709551615, 2.0**64),
        ("int64", -(2.0**63), -(2.0**63)),
    ],
)
def test_a_value_is_compared_as_pixels_hold_it(dtype: str, stated: float, stored: float) -> None:
    limits = {"uint64": np.iinfo("u8").max, "int64": np.iinfo("i8").min}
    image = np.full((20, 30), 1, dtype)
    image[:, :10] = limits.get(dtype, stated)
    found = predict_large(image, Brighter(), nodata=stated, **as_is)
    assert found.plan.nodata == stored
    assert found.report["nodata"]["pixels"] == 200


def test_a_run_continues_only_with_the_nodata_it_began_with(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", [textured(30, 40)], nodata="7")
    out = tmp_path / "m.zarr"
    predict_large(path, Brighter(), out, **as_is)
    predict_large(path, Brighter(), out, nodata=7, **as_is)
    with pytest.raises(OutputError, match=r"nodata: 7\.0 then, none now"):
        predict_large(path, Brighter(), out, nodata="none", **as_is)
    with pytest.raises(OutputError, match=r"nodata: 7\.0 then, 8\.0 now"):
        predict_large(path, Brighter(), out, nodata=8, **as_is)


def test_statistics_leave_values_without_data_out_channel_by_channel() -> None:
    pixels = textured(70, 90, 3).astype(np.int16)
    first, second = pixels[..., 0].copy(), pixels[..., 1].copy()
    pixels[:30, :, 0] = pixels[5:9, :40, 1] = -500
    pixels[..., 2] = -500
    valid = [first[30:], second[np.where(pixels[..., 1] == -500, False, True)]]
    with closing(open_source(pixels)) as source:
        mean, deviation = mean_and_deviation(source, 0, (0, 1, 2), nodata=-500.0)
        low, high = percentiles(source, 0, (0, 1, 2), (1.0, 99.8), nodata=-500.0)
        assert sampled_range(source, 0, (0, 1, 2), -500.0) == (1, 254)
        assert sampled_range(source, 0, (0, 1, 2)) == (-500, 254)
    for channel, values in enumerate(valid):
        assert mean[channel] == pytest.approx(values.mean(), rel=1e-12)
        assert deviation[channel] == pytest.approx(values.std(), rel=1e-12)
        ordered = np.sort(values, axis=None)
        assert low[channel] == ordered[int(np.ceil(0.01 * values.size)) - 1]
        assert high[channel] == ordered[int(np.ceil(0.998 * values.size)) - 1]
    assert (mean[2], deviation[2], low[2], high[2]) == (0, 0, 0, 0)


def test_statistics_of_all_channels_together_count_each_value_with_data_once() -> None:
    pixels = textured(70, 90, 3).astype(np.int16)
    pixels[:60, :, 0] = -500  # a channel with few pixels weighs less
    values = pixels[pixels != -500].astype(np.float64)
    with closing(open_source(pixels)) as source:
        mean, deviation = mean_and_deviation(source, 0, (0, 1, 2), -500.0, joint=True)
        low, high = percentiles(source, 0, (0, 1, 2), (1.0, 99.8), -500.0, joint=True)
    assert mean == pytest.approx((values.mean(),) * 3, rel=1e-12)
    assert deviation == pytest.approx((values.std(),) * 3, rel=1e-12)
    ordered = np.sort(values)
    assert low == (ordered[int(np.ceil(0.01 * values.size)) - 1],) * 3
    assert high == (ordered[int(np.ceil(0.998 * values.size)) - 1],) * 3


def test_a_huge_value_without_data_is_no_number_that_the_network_gets() -> None:
    pixels = textured(40, 50, dtype="float32")
    pixels[:5] = np.finfo("f4").min
    with closing(open_source(pixels)) as source:
        same = Normalization("none", (0.0,), (1.0,), "")
        assert largest_input(source, 0, (0,), same, float(np.finfo("f4").min)) < 1
        assert largest_input(source, 0, (0,), same) > 1e38


@pytest.mark.parametrize("value", ["0", "off", np.inf, [1, 2]])
def test_what_is_no_value_of_a_pixel_is_refused(value: Any) -> None:
    with pytest.raises(SettingError, match=r"nodata=.* use a finite number or none"):
        plan_prediction(np.zeros((9, 9), np.uint8), network(), nodata=value)


def test_nan_as_setting_means_that_nothing_else_is_left_out(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", [textured(30, 40)], nodata="7")
    assert plan_prediction(path, Brighter(), nodata=NAN, **as_is).nodata is None
