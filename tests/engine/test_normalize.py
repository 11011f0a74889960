"""Normalisation constants are those of the whole image, and what was assumed is said."""

import tracemalloc
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine import statistics
from tile_infer.engine.backends.base import NetworkFacts
from tile_infer.engine.backends.preprocessing import Preprocessing
from tile_infer.engine.normalize import Normalization, resolve_normalization
from tile_infer.engine.settings import Settings
from tile_infer.engine.sources import open_source
from tile_infer.tiler.errors import ImageError, ModelError, SettingError


def facts(**metadata: Any) -> NetworkFacts:
    return NetworkFacts("net", "0", "onnx", None, (None, None), None, "out", "none", **metadata)


def resolve(
    image: NDArray[np.generic],
    settings: Settings,
    channels: tuple[int, ...] = (0,),
    **metadata: Any,
) -> Normalization:
    return resolve_normalization(settings, facts(**metadata), open_source(image), 0, channels)


def image(dtype: str = "uint16", channels: int = 2) -> NDArray[np.generic]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 60000, (83, 61, channels)).astype(dtype)


@pytest.mark.parametrize(("name", "value"), [("STRIDE_PX", 16), ("PIECE_VALUES", 100)])
def test_zscore_uses_the_mean_and_deviation_of_the_whole_image(
    name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, name, value)
    pixels = image()
    found = resolve(pixels, Settings(normalize="zscore"), (1, 0))
    values = pixels[:, :, ::-1].reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(found.offset, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.scale, 1 / values.std(axis=0), rtol=1e-12)


def test_statistics_of_many_channels_take_little_memory() -> None:
    pixels = np.zeros((1024, 1024, 24), np.uint8)
    source = open_source(pixels, axes="YXC")
    tracemalloc.start()
    try:
        statistics.mean_and_deviation(source, 0, tuple(range(24)))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * pixels.nbytes  # in float64, all of them at once were 8 times as many


def test_zscore_keeps_its_digits_far_from_zero() -> None:
    pixels = 1e9 + np.random.default_rng(1).normal(size=(50, 50))
    found = resolve(pixels, Settings(normalize="zscore"))
    np.testing.assert_allclose(found.scale[0], 1 / pixels.std(), rtol=1e-6)


def test_zscore_of_one_value_everywhere_is_finite() -> None:
    found = resolve(np.full((5, 5), 7, "uint8"), Settings(normalize="zscore"))
    assert (found.offset, found.scale) == ((7.0,), (1.0,))


@pytest.mark.parametrize(
    "dtype",
    [
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
    ],
)
@pytest.mark.parametrize("outlier", [0, -9999, 10**6])
def test_percentiles_are_those_of_the_whole_image_whatever_the_outliers(
    dtype: str, outlier: int
) -> None:
    pixels = (image("float64", 1).astype(np.float64) / 500 - 20).astype(dtype)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    pixels[7, 7] = np.clip(outlier, limits.min, limits.max)
    found = resolve(pixels, Settings(normalize="percentile"))
    low, high = np.percentile(pixels, [1, 99.8], method="inverted_cdf").astype(np.float64)
    assert found.offset[0] == low
    assert 1 / found.scale[0] == pytest.approx(high - low, rel=1e-12)


@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 1 / 255), ("uint16", 1 / 65535)])
def test_integers_are_divided_by_their_types_maximum_unless_told_otherwise(
    dtype: str, scale: float
) -> None:
    found = resolve(image(dtype), Settings())
    assert found.mode == "unit"
    assert (found.offset, found.scale) == ((0.0,), (scale,))
    assert "assumed" in found.note


def test_floats_are_left_alone_unless_told_otherwise() -> None:
    found = resolve(image("float32"), Settings())
    assert (found.mode, found.offset, found.scale) == ("none", (0.0,), (1.0,))


def test_the_models_metadata_comes_before_the_assumption_and_after_the_user() -> None:
    pixels = image("uint8")
    assert resolve(pixels, Settings(), normalize="zscore").mode == "zscore"
    assert resolve(pixels, Settings(normalize="auto"), normalize="zscore").mode == "zscore"
    assert resolve(pixels, Settings(normalize="none"), normalize="zscore").mode == "none"
    found = resolve(pixels, Settings(), mean=(0.5,), std=(0.25,))
    assert found.offset == (127.5,)
    assert found.scale == (1 / 63.75,)
    assert "as the model says" in found.note


def test_a_network_of_whole_numbers_takes_a_description_that_changes_nothing() -> None:
    pixels, nothing = image("uint8"), Preprocessing(dtype="uint8")
    found = resolve(pixels, Settings(), input_dtype="uint8", preprocessing=nothing)
    assert (found.offset, found.scale) == ((0.0,), (1.0,))
    halved = Preprocessing(gain=(0.5,))
    with pytest.raises(ModelError, match="takes uint8 pixels as they are"):
        resolve(pixels, Settings(), input_dtype="uint8", preprocessing=halved)
    assert resolve(pixels, Settings(), preprocessing=halved).scale == (0.5,)


def test_imagenets_constants_are_in_units_of_the_dtype() -> None:
    found = resolve(image("uint8", 3), Settings(normalize="imagenet"), (0, 1, 2))
    assert found.offset == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255))
    assert found.scale[2] == pytest.approx(1 / (0.225 * 255))
    with pytest.raises(SettingError, match=r"3 means .* given 2 channels"):
        resolve(image("uint8"), Settings(normalize="imagenet"), (0, 1))


def test_an_image_that_uses_little_of_its_range_is_warned_about() -> None:
    dark = (image() % 236).astype("uint16")
    warning = resolve(dark, Settings()).warning
    assert warning is not None
    assert "between 0 and 235" in warning
    assert "zscore" in warning
    assert resolve(dark, Settings(normalize="unit")).warning is None, "it was asked for"
    assert resolve(image(), Settings()).warning is None, "the range is used"
    assert resolve(dark.astype("uint8"), Settings()).warning is None, "8 bits are often dark"


def test_an_image_without_data_is_not_warned_about() -> None:
    source = open_source(np.zeros((40, 50), np.uint16))
    assert resolve_normalization(Settings(), facts(), source, 0, (0,), 0).warning is None
    assert resolve_normalization(Settings(), facts(), source, 0, (0,)).warning is not None


def test_a_float_image_of_bytes_is_warned_about() -> None:
    glaring = image("uint8").astype(np.float32)
    warning = resolve(glaring, Settings()).warning
    assert warning is not None
    assert "left as it is" in warning
    assert resolve(glaring, Settings(normalize="none")).warning is None, "it was asked for"
    assert resolve(glaring / 255, Settings()).warning is None


def test_bits_are_zeros_and_ones() -> None:
    found = resolve(np.asarray(image("uint8", 1), np.uint8) > 100, Settings())
    assert (found.mode, found.scale) == ("none", (1.0,))


@pytest.mark.parametrize("mode", ["zscore", "percentile"])
def test_an_image_with_infinity_has_no_statistics(mode: Literal["zscore", "percentile"]) -> None:
    pixels = image("float32", 1)
    pixels[3, 4] = -np.inf
    with pytest.raises(ImageError, match="holds infinity"):
        resolve(pixels, Settings(normalize=mode))


def test_a_mode_that_the_models_metadata_invents_is_refused() -> None:
    with pytest.raises(SettingError, match="'minmax' is unknown"):
        resolve(image("uint8"), Settings(), normalize="minmax")


def test_constants_of_raw_pixels_are_warned_of_for_integers_only() -> None:
    raw = Settings(mean=(128, 51), std=(30.6, 25.5))
    found = resolve(image("uint8"), raw, (0, 1))
    assert list(found.offset) == [128 * 255, 51 * 255]  # as asked, all the same
    assert found.warning is not None
    assert "use mean=0.502,0.2 and std=0.12,0.1" in found.warning
    assert resolve(image("float32"), raw, (0, 1)).warning is None
    unit = Settings(mean=(0.5, 0.2), std=(1.0, 0.1))
    assert resolve(image("uint8"), unit, (0, 1)).warning is None
    said = resolve(image("uint8"), Settings(), mean=(0.0,), std=(255.0,))
    assert said.warning is not None
    assert "std=255 are in units of 0 to 1, where 1 stands for 255" in said.warning
