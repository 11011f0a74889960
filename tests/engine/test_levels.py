"""The resolution with pixels of the right size is worked on, or none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile
import torch
import zarr
from numpy.typing import NDArray
from torch import nn

from tile_infer import OutputError, Plan, SettingError, predict_large
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import NetworkFacts
from tile_infer.engine.levels import LevelChoice, choose_level, with_pixel_size
from tile_infer.engine.planning import make_plan
from tile_infer.engine.settings import Settings
from tile_infer.engine.sources import ImageFacts, Level, open_source

from .geotiffs import keys, write_geotiff
from .sources.test_real_images import SLIDE, needs

SHAPES = ((400, 600), (200, 300), (100, 150))


def facts(
    *sizes: tuple[float, float] | float | None, unit: str | None = "micrometer"
) -> ImageFacts:
    levels = tuple(
        Level(shape, (size, size) if isinstance(size, float) else size)
        for shape, size in zip(SHAPES, sizes, strict=False)
    )
    return ImageFacts("slide.tif", "uint8", 1, "YX", levels, "0", unit)


def choose(
    image: ImageFacts, trained: tuple[float, float] | None = None, **options: Any
) -> LevelChoice:
    network = NetworkFacts(
        "net", "0", "onnx", 1, (None, None), None, "out", "none", pixel_size=trained
    )
    settings = Settings(**options)
    return choose_level(with_pixel_size(image, settings.mpp_image), network, settings)


PYRAMID = facts(0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    ("mpp", "level"),
    [(0.25, 0), (0.5, 1), (1.0, 2), (0.4546, 1), (0.5555, 1), (1.11, 2), (0.228, 0)],
)
def test_mpp_picks_the_level_within_a_tenth(mpp: float, level: int) -> None:
    assert choose(PYRAMID, mpp=mpp) == (level, [], [])


@pytest.mark.parametrize("mpp", [0.45, 0.56, 0.7, 2.0, 0.125])
def test_mpp_that_fits_no_level_is_refused_with_the_list_of_them(mpp: float) -> None:
    with pytest.raises(SettingError) as caught:
        choose(PYRAMID, mpp=mpp)
    text = str(caught.value)
    assert text.startswith(f"mpp={mpp:g}: no level of slide.tif has pixels within 10 % of {mpp:g}")
    assert (
        "0 (400 x 600 px of 0.25 um), 1 (200 x 300 px of 0.5 um), 2 (100 x 150 px of 1 um)" in text
    )
    assert "\n" not in text


def test_both_axes_have_to_fit() -> None:
    image = facts((0.5, 0.5), (0.5, 1.0), (1.04, 0.96))
    assert choose(image, mpp=1.0).level == 2
    with pytest.raises(SettingError, match=r"1 \(200 x 300 px of 0\.5 um x 1 um"):
        choose(facts((0.5, 0.5), (0.5, 1.0)), mpp=1.0)


def test_of_two_levels_that_fit_the_nearer_is_taken() -> None:
    assert choose(facts(0.46, 0.5, 0.54), mpp=0.53).level == 2


def test_units_of_the_image_count() -> None:
    assert choose(facts(250.0, 500.0, unit="nanometer"), mpp=0.5).level == 1
    assert choose(facts(0.3, 0.6, unit="meter"), mpp=300_000).level == 0
    with pytest.raises(SettingError, match=r"of 30 cm; its levels: 0 \(400 x 600 px of 10 m\)"):
        choose(facts(10.0, unit="meter"), mpp=300_000)


@pytest.mark.parametrize("image", [facts(None), facts(1.0, unit=None), facts(1.0, unit="parsec")])
def test_mpp_needs_an_image_with_a_size(image: ImageFacts) -> None:
    with pytest.raises(SettingError, match=r"mpp=1 needs .* or mpp_image=X"):
        choose(image, mpp=1.0)
    assert choose(image, mpp=1.0, mpp_image=1.0).level == 0


def test_a_stated_size_replaces_that_of_the_image_at_all_levels() -> None:
    image = with_pixel_size(facts((9.0, 8.0), None, (1.0, 1.0), unit="meter"), 0.25)
    assert [level.pixel_size for level in image.levels] == [(0.25,) * 2, (0.5,) * 2, (1.0,) * 2]
    assert image.unit == "micrometer"
    large = with_pixel_size(PYRAMID, 300_000)
    assert (large.unit, large.levels[1].pixel_size) == ("meter", (0.6, 0.6))
    assert with_pixel_size(PYRAMID, None) is PYRAMID
    assert choose(PYRAMID, mpp=0.5, mpp_image=0.5).level == 0


def test_mpp_and_level_contradict() -> None:
    with pytest.raises(SettingError, match="mpp and level contradict"):
        Settings(mpp=0.5, level=1)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["mpp", "mpp_image"])
def test_a_pixel_has_a_size_above_zero(name: str, value: float) -> None:
    with pytest.raises(SettingError, match=f"{name}=.* use micrometers above 0"):
        Settings(**cast("Any", {name: value}))


def test_a_network_that_states_no_size_works_on_level_0() -> None:
    assert choose(PYRAMID) == (0, [], [])
    assert choose(facts(None)) == (0, [], [])


def test_a_network_works_on_the_level_that_it_was_trained_on() -> None:
    assert choose(PYRAMID, (0.26, 0.24)) == (0, [], [])
    level, (note,), warnings = choose(PYRAMID, (0.5, 0.5))
    assert (level, warnings) == (1, [])
    assert "level 1 is segmented" in note
    assert "net was trained on (0.5 um); use level=0" in note


def test_an_image_without_the_networks_size_is_refused_until_one_is_said() -> None:
    trained = (2.0, 2.0)
    with pytest.raises(SettingError) as caught:
        choose(PYRAMID, trained)
    text = str(caught.value)
    assert "net was trained on pixels of 2 um, and slide.tif has none within 10 % of that" in text
    assert "2 (100 x 150 px of 1 um)" in text
    for options, level in (({"level": 1}, 1), ({"mpp": 1.0}, 2), ({"mpp_image": 0.7}, 0)):
        chosen = choose(PYRAMID, trained, **options)
        assert chosen.level == level
        (warning,) = chosen.warnings
        assert "trained on pixels of 2 um" in warning
    corrected = choose(PYRAMID, trained, mpp_image=0.5)
    assert (corrected.level, corrected.warnings) == (2, [])


def test_an_image_of_unknown_size_is_taken_to_fit_and_that_is_said() -> None:
    level, (note,), warnings = choose(facts(None), (0.5, 0.5))
    assert (level, warnings) == (0, [])
    assert "does not state the size of its own: taken to fit" in note


def test_a_level_that_is_not_there_is_refused_with_the_list() -> None:
    with pytest.raises(
        SettingError, match=r"level=3 is not in slide\.tif; its levels: 0 \(400 x 600 px of"
    ):
        choose(PYRAMID, level=3)


class Half(nn.Module):
    """Says 1 where the pixel is above a half."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels - 0.5


def blank(level: int) -> NDArray[np.uint8]:
    return np.full(SHAPES[level], 10 * level, np.uint8)


def write_ome(path: Path) -> None:
    size = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(blank(0), subifds=2, metadata={"axes": "YX", **size}, tile=(64, 64))
        for level in (1, 2):
            tiff.write(blank(level), subfiletype=1, tile=(64, 64))


def write_svs(path: Path) -> None:
    text = "Aperio Image Library v11.2.1 \n600x400 -> 600x400|AppMag = 40|MPP = 0.25"
    rgb = [np.repeat(blank(level)[..., None], 3, axis=2) for level in range(3)]
    options: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(rgb[0], description=text, **options)
        tiff.write(rgb[2][:50, :50], description="thumbnail", photometric="rgb", metadata=None)
        for pixels in rgb[1:]:
            tiff.write(pixels, description="Aperio Image Library v11.2.1", **options)


def write_cog(path: Path) -> None:
    write_geotiff(path, [blank(level) for level in range(3)], size=(25e-8, 25e-8))


def write_ome_zarr(path: Path, version: str) -> None:
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    datasets: list[Any] = []
    for level in range(3):
        group.create_array(str(level), data=blank(level), chunks=(64, 64))
        scale = {"type": "scale", "scale": [0.25 * 2**level] * 2}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes: list[Any] = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    image: Any = {"axes": axes, "datasets": datasets, "version": version}
    group.attrs.update(
        {"ome": {"version": version, "multiscales": [image]}}
        if version == "0.5"
        else {"multiscales": [image]}
    )


@pytest.mark.parametrize("form", ["ome.tif", "svs", "cog.tif", "0.4", "0.5"])
def test_every_pyramid_is_worked_on_at_the_size_asked_for(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}"
    if form == "ome.tif":
        write_ome(path)
    elif form == "svs":
        write_svs(path)
    elif form == "cog.tif":
        write_cog(path)
    else:
        write_ome_zarr(path, form)
    for mpp, level in ((0.25, 0), (0.5, 1), (1.0, 2)):
        found = predict_large(
            path, Half(), tmp_path / f"{level}.zarr", mpp=mpp, channels=(0,), workers=1
        )
        assert found.plan.level == level
        assert found.mask.shape == SHAPES[level]
        ome: Any = found.group.attrs["ome"]
        (multiscale,) = ome["multiscales"]
        scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
        in_meters = multiscale["axes"][0]["unit"] == "meter"
        assert scale == pytest.approx([mpp * (1e-6 if in_meters else 1)] * 2, rel=1e-12)
        area = scale[0] * scale[1]
        for entry in found.report["classes"]:
            assert entry["area"] == pytest.approx(entry["pixels"] * area)


def test_degrees_are_no_size(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", [blank(0)], directory=keys(model=2, epsg=4326))
    with pytest.raises(SettingError, match="mpp=10 needs an image that states"):
        predict_large(path, Half(), mpp=10, workers=1)


def test_the_size_stated_by_the_user_is_the_masks(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", [blank(0), blank(1)], size=None, tie=())
    found = predict_large(path, Half(), mpp=1.0, mpp_image=0.5, workers=1)
    assert found.plan.level == 1
    ome: Any = found.group.attrs["ome"]
    (multiscale,) = ome["multiscales"]
    assert multiscale["axes"][0]["unit"] == "micrometer"
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 1.0]
    assert Plan.from_dict(json.loads(json.dumps(found.plan.to_dict()))) == found.plan


def test_a_run_continues_where_another_word_means_the_same_level(tmp_path: Path) -> None:
    write_ome(tmp_path / "a.tif")
    out = tmp_path / "m.zarr"
    first = predict_large(tmp_path / "a.tif", Half(), out, mpp=0.5, workers=1)
    said: Any
    for said in ({}, {"mpp": 0.51}, {"level": 1}):
        again = predict_large(tmp_path / "a.tif", Half(), out, workers=1, **said)
        assert again.plan == first.plan
    for said in ({"mpp": 0.25}, {"level": 0}):
        with pytest.raises(OutputError, match="level: 1 then, 0 now"):
            predict_large(tmp_path / "a.tif", Half(), out, **said)
    with pytest.raises(OutputError, match=r"mpp_image: not given then, 0\.5 now"):
        predict_large(tmp_path / "a.tif", Half(), out, mpp_image=0.5)


def test_what_is_said_of_the_level_is_in_the_plan(tmp_path: Path) -> None:
    write_ome(tmp_path / "a.tif")
    source, network = open_source(tmp_path / "a.tif"), open_network(Half())
    for trained, level in ((0.5, 1), (0.25, 0)):
        plan = make_plan(source, _Trained(network, (trained, trained)), Settings(workers=1))
        assert plan.level == level
        assert any(note.startswith("level 1 is segmented") for note in plan.notes) == (level == 1)
    plan = make_plan(source, _Trained(network, (0.5, 0.5)), Settings(workers=1, level=0))
    assert any("trained on pixels of 0.5 um" in warning for warning in plan.warnings)


class _Trained:
    """A network whose metadata state the size of its pixels."""

    def __init__(self, network: Any, pixel_size: tuple[float, float]) -> None:
        self._network = network
        self._pixel_size = pixel_size

    @property
    def facts(self) -> NetworkFacts:
        stated: NetworkFacts = self._network.facts
        return replace(stated, pixel_size=self._pixel_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


@needs(SLIDE)
def test_a_real_slide_is_worked_on_at_its_own_size_or_refused() -> None:
    image = open_source(SLIDE).facts
    assert choose(image, mpp=0.5).level == 0
    with pytest.raises(
        SettingError, match=r"its levels: 0 \(2967 x 2220 px of 0\.499 um\); use level=N"
    ):
        choose(image, mpp=0.25)
