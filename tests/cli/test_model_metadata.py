import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import zarr

from tile_infer.cli.preview import MASK_OPACITY

from ..engine.backends.zoo_models import (
    SIGMOID,
    ZSCORE,
    description,
    pack,
    write_folder,
    write_network,
)
from .conftest import Run, Write
from .test_preview import read_png

SAID = {
    "classes": ["glass", "tissue"],
    "colours": [[0, 0, 0], [10, 200, 30]],
    "normalize": "unit",
    "pixel_size": 0.5,
}


@pytest.fixture
def talkative(bright: Path) -> Path:
    """The network that says 1 for bright pixels, with metadata."""
    model = onnx.load(bright)
    onnx.helper.set_model_props(model, {"tile_infer": json.dumps(SAID)})
    onnx.save(model, bright)
    return bright


def test_a_run_says_what_it_took_from_the_model(run: Run, image: Write, talkative: Path) -> None:
    done = run(image(), "--model", talkative)
    assert done.code == 0
    said = " ".join(done.err.split())
    assert "uint8 divided by 255 (as the model says)" in said
    assert "classes glass, tissue (as the model says)" in said
    assert "trained on pixels of 0.5 um (as the model says)" in said
    assert "tissue" in done.out


def test_plan_and_inspect_say_it_too(run: Run, image: Write, talkative: Path) -> None:
    beside = talkative.with_name("bright.tile_infer.json")
    beside.write_text('{"activation": "softmax"}')
    planned = " ".join(run("plan", image(), "--model", talkative).err.split())
    assert "classes glass, tissue (as the model says)" in planned
    assert "softmax turns the output into probabilities (as bright.tile_infer.json" in planned
    rows = [" ".join(line.split()) for line in run("inspect", talkative).out.splitlines()]
    assert "classes glass, tissue (as the model says)" in rows
    assert "normalize unit (as the model says)" in rows
    assert "pixel size 0.5 x 0.5 um (as the model says)" in rows
    assert "activation softmax (as bright.tile_infer.json says)" in rows


def test_inspect_warns_of_what_a_run_refuses_and_names_the_file(
    run: Run, image: Write, bright: Path
) -> None:
    bright.with_name("bright.tile_infer.json").write_text('{"classes": ["a", "b", "c"]}')
    wrong = "3 names of classes, as bright.tile_infer.json says, but its output has 2"
    inspected = run("inspect", bright)
    assert inspected.code == 0
    assert f"warning: bright has {wrong}" in " ".join(inspected.err.split())
    refused = run(image(), "--model", bright)
    assert refused.code == 1
    assert f"error: bright has {wrong}" in " ".join(refused.err.split())


def test_inspect_json_has_the_metadata_and_its_origins(run: Run, talkative: Path) -> None:
    found = json.loads(run("inspect", talkative, "--json").out)
    assert found["class_colours"] == SAID["colours"]
    assert found["pixel_size"] == [0.5, 0.5]
    assert found["origins"] == dict.fromkeys(
        ("class_names", "class_colours", "normalize", "pixel_size"), "the model"
    )


def test_the_preview_has_the_models_colours(run: Run, image: Write, talkative: Path) -> None:
    slide = image("slide.tif", np.full((30, 40), 200, np.uint8))
    assert run(slide, "--model", talkative, "--preview", "p.png", "--also", "m.geojson").code == 0
    expected = np.rint(200 + MASK_OPACITY * (np.array([10.0, 200.0, 30.0]) - 200))
    assert (read_png("p.png") == expected).all()
    shape = json.loads(Path("m.geojson").read_text())["features"][0]
    assert shape["properties"]["classification"]["color"] == [10, 200, 30]


def zoo(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    weights = write_network(folder / "weights.onnx")
    said = description(weights, before=[ZSCORE], after=[SIGMOID]) | fields
    return write_folder(folder, said)


def test_a_description_needs_no_option_and_names_the_mask(run: Run, image: Write) -> None:
    model = zoo(Path("zoo").absolute())
    done = run(image(), "--model", model)
    assert done.code == 0, done.err
    assert "(as bioimageio.yaml says)" in " ".join(done.err.split())
    assert zarr.open_array("slide.tiny-network-2d.zarr/0", mode="r").shape == (40, 60)


def test_several_images_have_masks_of_that_name_as_well(run: Run, image: Write) -> None:
    zoo(Path("zoo").absolute())
    package = pack(Path("zoo"), Path("package.zip").absolute())
    done = run(image("a.tif"), image("b.tif"), "--model", package)
    assert done.code == 0, done.err
    assert sorted(path.name for path in Path().glob("*.zarr")) == [
        "a.tiny-network-2d.zarr",
        "b.tiny-network-2d.zarr",
    ]


def test_a_name_cannot_leave_the_images_folder(run: Run, image: Write) -> None:
    model = zoo(Path("zoo").absolute(), id="a/../../../etc")
    done = run(image(), "--model", model)
    assert done.code == 0, done.err
    assert Path("slide.a-etc.zarr").is_dir()


def test_inspect_shows_what_was_measured_though_the_description_contradicts(
    run: Run, image: Write
) -> None:
    folder = Path("zoo").absolute()
    folder.mkdir()
    said = description(write_network(folder / "weights.onnx"), size={"min": 17, "step": 2})
    model = write_folder(folder, said)
    done = run("inspect", model)
    assert done.code == 0
    assert "17 + n * 2 px along y, measured were 2 + n * 2" in " ".join(done.err.split())
    assert ["period", "2", "2"] in [line.split() for line in done.out.splitlines()]
    assert run(image(), "--model", model).code == 1


def test_a_steps_name_is_shown_where_it_is_not_supported(run: Run, image: Write) -> None:
    folder = Path("zoo").absolute()
    folder.mkdir()
    said = description(write_network(folder / "weights.onnx"), before=[SIGMOID])
    model = write_folder(folder, said)
    assert "sigmoid, which is not supported" in run("inspect", model).out
    done = run(image(), "--model", model)
    assert done.code == 1
    assert "is not supported; use --normalize" in " ".join(done.err.split())
    assert run(image(), "--model", model, "--normalize", "unit").code == 0
