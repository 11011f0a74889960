"""Guarantee 1: logits and labels are those of one pass over the mirror-extended image."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tile_infer import predict_large

from .seeded_networks import SeededUNet, export, rarest_share, seeded, textured, unit
from .whole_pass import TOLERANCE, clear_pixels, label_of, logit_error, mirrored, whole_pass

ONE_DEVIATION = 1.0
"""Seeded logits have deviation 1; a tiny image's few logits may all be near 0 by chance."""

NETWORKS: dict[str, dict[str, Any]] = {
    "valid, torch": {"depth": 3, "padding": 0, "channels": 2, "classes": 3},
    "valid, free": {"depth": 3, "padding": 0, "classes": 2},
    "valid, 188": {"depth": 3, "padding": 0, "channels": 3, "classes": 3, "size": (188, 188)},
    "valid, 140 x 220": {"depth": 2, "padding": 0, "classes": 3, "size": (140, 220)},
    "valid, dynamo": {"depth": 2, "padding": 0, "classes": 2, "size": (140, 140), "dynamo": True},
    "valid, binary": {"depth": 3, "padding": 0, "classes": 1},
    "same, torch": {"depth": 3, "padding": 1, "channels": 3, "classes": 4, "width": 6},
    "same, torch, binary": {"depth": 2, "padding": 1, "classes": 1},
    "same, free": {"depth": 3, "padding": 1, "channels": 2, "classes": 3},
    "same, 256": {"depth": 3, "padding": 1, "classes": 3, "size": (256, 256)},
    "deep valid, torch": {"depth": 4, "padding": 0, "channels": 3, "classes": 4, "width": 6},
    "deep valid, free": {"depth": 4, "padding": 0, "classes": 3},
    "deep valid, 572": {"depth": 4, "padding": 0, "classes": 3, "size": (572, 572)},
    "deep same, torch": {"depth": 4, "padding": 1, "classes": 3},
    "deep same, free": {"depth": 4, "padding": 1, "channels": 3, "classes": 2},
    "deep same, 512": {"depth": 4, "padding": 1, "classes": 2, "size": (512, 512)},
}

NASTY = [(1, 1), (1, 700), (5, 1300), (187, 188), (43, 50), (521, 390), (1500, 37)]


class Library:
    """Networks by name, each built and exported once."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.get = cache(self._get)

    def _get(self, name: str) -> tuple[SeededUNet, Any]:
        options = dict(NETWORKS[name])
        size, dynamo = options.pop("size", None), options.pop("dynamo", False)
        module = seeded(seed=len(name), **options)
        if "torch" in name:
            return module, module
        path = self.folder / f"{name.replace(' ', '_')}.onnx"
        return module, export(module, path, options.get("channels", 1), size, dynamo=dynamo)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(tmp_path_factory.mktemp("networks"))


def check(module: SeededUNet, model: Any, image: NDArray[np.generic]) -> None:
    found = predict_large(
        image,
        model,
        axes="YXC",  # with few rows, any axis could be the channels
        output="logits",
        normalize="none" if image.dtype.kind == "f" else "unit",
        workers=2,
    )
    reference = whole_pass(module, unit(image), module.shape)
    assert found.logits is not None
    assert found.plan.exact
    error = logit_error(np.asarray(found.logits), reference, ONE_DEVIATION)
    clear = clear_pixels(reference, ONE_DEVIATION)
    wrong = (np.asarray(found) != label_of(reference)) & clear
    assert error <= TOLERANCE
    assert not wrong.any()
    if reference[0].size > 100_000:  # nothing is shown where one class is everywhere, or near ties
        assert rarest_share(reference) >= 0.05
        assert clear.mean() > 0.99


def dtype_for(name: str) -> str:
    return ("uint8", "uint16", "float32")[len(name) % 3]


def nasty() -> list[tuple[str, tuple[int, int]]]:
    """Return every size for some networks, and the nastiest for every network."""
    thorough = ("valid, torch", "valid, 188", "same, free")
    shallow = [name for name in NETWORKS if "deep" not in name]
    return [
        (name, shape)
        for name in shallow
        for shape in (NASTY if name in thorough else NASTY[::2][:3])
    ]


@pytest.mark.parametrize(("name", "shape"), nasty(), ids=str)
def test_nasty_sizes(library: Library, name: str, shape: tuple[int, int]) -> None:
    module, model = library.get(name)
    channels = NETWORKS[name].get("channels", 1)
    check(module, model, textured(*shape, channels, dtype_for(name), seed=sum(shape)))


@pytest.mark.parametrize("name", [name for name in NETWORKS if "deep" in name])
@pytest.mark.parametrize("shape", [(700, 531), (91, 400)], ids=str)
def test_deep_networks(library: Library, name: str, shape: tuple[int, int]) -> None:
    module, model = library.get(name)
    channels = NETWORKS[name].get("channels", 1)
    check(module, model, textured(*shape, channels, dtype_for(name), seed=sum(shape)))


@pytest.mark.parametrize("name", ["valid, torch", "same, free", "valid, 188"])
def test_an_image_of_several_blocks(library: Library, name: str) -> None:
    module, model = library.get(name)
    channels = NETWORKS[name].get("channels", 1)
    check(module, model, textured(1453, 1161, channels, dtype_for(name), seed=5))


SIDES = st.one_of(st.integers(1, 120), st.integers(1, 1500))


@given(
    name=st.sampled_from([name for name in NETWORKS if "deep" not in name]),
    shape=st.tuples(SIDES, SIDES).filter(lambda shape: shape[0] * shape[1] <= 600_000),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=24,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
def test_sizes_drawn_at_random(
    library: Library, name: str, shape: tuple[int, int], dtype: str, seed: int
) -> None:
    module, model = library.get(name)
    check(module, model, textured(*shape, NETWORKS[name].get("channels", 1), dtype, seed))


def test_the_reference_mirrors_as_numpy_does() -> None:
    for length in (1, 2, 3, 40):
        padded = np.pad(np.arange(length), (17, 19), mode="reflect" if length > 1 else "edge")
        assert mirrored(length, 17, 19).tolist() == padded.tolist()


def test_the_reference_does_not_depend_on_how_far_it_is_extended() -> None:
    module = seeded(3, 1)
    image = unit(textured(150, 171))
    wide = type(module.shape)(0, 8, 8, module.shape.padding_reach + 40)
    near, far = whole_pass(module, image, module.shape), whole_pass(module, image, wide)
    assert logit_error(near, far) < TOLERANCE
    short = type(module.shape)(0, 8, 8, 16)
    assert logit_error(whole_pass(module, image, short), far) > TOLERANCE
