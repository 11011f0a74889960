"""Normalisation is the image's, never the tile's."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer import predict_large

from .seeded_networks import rarest_share, seeded, textured
from .whole_pass import TOLERANCE, assert_whole_pass, logit_error, whole_pass

IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


def shaded(dtype: str) -> NDArray[np.generic]:
    """Return an image whose brightness differs from tile to tile."""
    image = textured(333, 460, 3, "float32", seed=2)
    ramp = np.linspace(0.3, 1, 460)[:, None] * np.array([1.0, 0.8, 0.6])
    image = (image * ramp).astype(np.float32)
    full = np.iinfo(dtype).max if dtype != "float32" else 1
    return np.asarray(image * full).astype(np.dtype(dtype))


def by_hand(image: NDArray[np.generic], mode: str) -> NDArray[np.float64]:
    values = image.astype(np.float64)
    full = float(np.iinfo(str(image.dtype)).max) if image.dtype.kind == "u" else 1.0
    flat = values.reshape(-1, 3)
    if mode == "zscore":
        return np.asarray((values - flat.mean(axis=0)) / flat.std(axis=0))
    if mode == "percentile":
        low, high = np.percentile(flat, [1, 99.8], axis=0, method="inverted_cdf")
        return np.asarray((values - low) / (high - low))
    if mode == "imagenet":
        return np.asarray((values / full - IMAGENET[0]) / IMAGENET[1])
    return values if mode == "none" else values / full


@pytest.mark.parametrize("mode", ["zscore", "percentile", "imagenet", "unit", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_whole_image_is_normalised_at_once(mode: Any, dtype: str) -> None:
    module = seeded(2, 0, channels=3, classes=3)
    image = shaded(dtype)
    reference = whole_pass(module, by_hand(image, mode).astype(np.float32), module.shape)
    found = predict_large(
        image, module, normalize=mode, tile=(140, 140), output="logits", workers=2
    )
    assert found.plan.grid.tiles > 4
    assert_whole_pass(found.logits, found, reference)


def test_statistics_of_each_tile_would_show() -> None:
    module = seeded(2, 0, channels=3, classes=3)
    image = shaded("uint8")
    whole = whole_pass(module, by_hand(image, "zscore").astype(np.float32), module.shape)
    part = whole_pass(module, by_hand(image[:, :100], "zscore").astype(np.float32), module.shape)
    assert rarest_share(whole) > 0.05
    assert logit_error(part[:, :, :70], whole[:, :, :70]) > 1000 * TOLERANCE


def test_given_constants_are_in_units_of_the_full_scale() -> None:
    module = seeded(2, 0, channels=3, classes=3)
    image = shaded("uint16")
    mean, std = (0.2, 0.3, 0.4), (0.1, 0.2, 0.3)
    pixels = (image.astype(np.float64) / 65535 - mean) / std
    found = predict_large(image, module, mean=mean, std=std, output="logits", workers=2)
    reference = whole_pass(module, pixels.astype(np.float32), module.shape)
    assert found.logits is not None
    assert logit_error(np.asarray(found.logits), reference) <= TOLERANCE
