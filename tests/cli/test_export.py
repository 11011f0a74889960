import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tile_infer.engine.backends.metadata import Metadata
from tile_infer.engine.networks.checkpoint import Checkpoint, save_checkpoint
from tile_infer.engine.networks.registry import build

from .conftest import Run, Write

OPTIONS = {"in_channels": 1, "classes": 2, "width": 2}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A nested network that was trained, or so it says."""
    torch.manual_seed(3)
    state = build("unetpp", **OPTIONS).state_dict()
    metadata = Metadata(classes=("glass", "cell"), mean=(0.25,), std=(0.5,), pixel_size=0.5)
    path = tmp_path / "trained.pt"
    save_checkpoint(path, Checkpoint("unetpp", OPTIONS, state, metadata))
    return path


def logits(path: Path, image: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def test_a_checkpoint_becomes_a_file_with_its_weights_and_its_words(
    run: Run, checkpoint: Path
) -> None:
    done = run("export", checkpoint, "--out", "net.onnx")
    assert (done.code, done.err) == (0, "")
    assert ["sizes", "16", "+", "16", "k", "px"] in [row.split() for row in done.out.splitlines()]
    torch.manual_seed(3)
    network, image = build("unetpp", **OPTIONS).eval(), torch.rand(1, 1, 48, 64)
    with torch.inference_mode():
        expected = network(image)
    found = logits(Path("net.onnx"), image)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    inspected = run("inspect", "net.onnx")
    assert (inspected.code, inspected.err) == (0, "")
    rows = [line.split() for line in inspected.out.splitlines()]
    assert ["classes", "glass,", "cell", "(as", "the", "model", "says)"] in rows
    facts = json.loads(run("inspect", "net.onnx", "--json").out)
    assert facts["period"] == [16, 16]
    assert facts["halo"] == {"before": [94, 94], "after": [94, 94]}


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_pruned_file_is_smaller_and_gives_that_head(
    run: Run, checkpoint: Path, level: int
) -> None:
    run("export", checkpoint, "--out", "full.onnx")
    assert run("export", checkpoint, "--out", "net.onnx", "--prune", f"L{level}").code == 0
    torch.manual_seed(3)
    network, image = build("unetpp", **OPTIONS).eval(), torch.rand(1, 1, 48, 64)
    with torch.inference_mode():
        heads = network.heads(image)
    found = logits(Path("net.onnx"), image)
    largest = float(heads[level - 1].abs().max())
    assert float((found - heads[level - 1]).abs().max()) <= 1e-5 * largest
    assert float((found - heads[level % 4]).abs().max()) > 1e-2 * largest
    assert Path("net.onnx").stat().st_size < Path("full.onnx").stat().st_size


def test_a_file_of_one_tile_takes_no_other(run: Run, checkpoint: Path) -> None:
    assert run("export", checkpoint, "--out", "net.onnx", "--tile", "64x96").code == 0
    (entry,) = onnxruntime.InferenceSession("net.onnx").get_inputs()
    assert entry.shape == ["batch", 1, 64, 96]


def test_an_exported_file_segments_an_image(run: Run, image: Write, checkpoint: Path) -> None:
    run("export", checkpoint, "--out", "net.onnx", "--prune", "L1")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 70)).astype(np.uint8)
    done = run(image("slide.tif", pixels), "--model", "net.onnx")
    assert done.code == 0
    assert Path("slide.net.zarr").is_dir()


def test_a_name_gives_random_weights_and_says_so(run: Run) -> None:
    done = run(
        *("export", "fcn8s", "--out", "net.onnx", "--width", "2", "--channels", "4"),
        *("--classes", "sea,land,ice", "--normalize", "imagenet", "--option", "way=upsampling"),
    )
    assert done.code == 0
    assert done.err == "warning: fcn8s has random weights; train it before it finds anything\n"
    facts = json.loads(run("inspect", "net.onnx", "--json").out)
    assert facts["input"] == [None, 4, None, None]
    rows = [line.split() for line in run("inspect", "net.onnx").out.splitlines()]
    assert ["classes", "sea,", "land,", "ice", "(as", "the", "model", "says)"] in rows
    assert ["normalize", "imagenet", "(as", "the", "model", "says)"] in rows


def test_another_normalisation_replaces_the_constants_of_the_checkpoint(
    run: Run, checkpoint: Path
) -> None:
    assert run("export", checkpoint, "--out", "net.onnx", "--normalize", "unit").code == 0
    rows = [line.split() for line in run("inspect", "net.onnx").out.splitlines()]
    assert ["normalize", "unit", "(as", "the", "model", "says)"] in rows


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (["unet"], ["--out is missing"]),
        ([], ["NETWORK is missing"]),
        (["vnet", "--out", "a.onnx"], ["vnet is neither a file nor a network", "unet, unet_wide"]),
        (["unet", "--out", "a.pt"], ["--out a.pt is no ONNX file", "a.onnx"]),
        (["unet", "--out", "no/a.onnx"], ["the folder of no/a.onnx does not exist"]),
        (["unet", "--out", "there.onnx"], ["there.onnx is there already", "--overwrite"]),
        (["unet", "--out", "a.onnx", "--width", "0"], ["width and depth >= 1"]),
        (["fcn8s", "--out", "a.onnx", "--width", "0"], ["--width 0 is not possible"]),
        (["unet", "--out", "a.onnx", "--width", "2", "--tile", "570"], ["188 + 16 k px", "572"]),
        (["unet", "--out", "a.onnx", "--tile", "x"], ["--tile", "write 572"]),
        (["unet", "--out", "a.onnx", "--prune", "L2", "--width", "2"], ["--prune L2", "one head"]),
        (["unetpp", "--out", "a.onnx", "--prune", "L5"], ["--prune", "L4"]),
        (["unet", "--out", "a.onnx", "--option", "depth"], ["'depth' has no value", "depth=3"]),
        (["unet", "--out", "a.onnx", "--option", "depth=x"], ["a whole number", "depth=4"]),
        (["unet", "--out", "a.onnx", "--option", "batch_norm=x"], ["true or false", "=false"]),
        (["unet", "--out", "a.onnx", "--option", "hight=3"], ["unet has no hight", "depth"]),
        (["fcn8s", "--out", "a.onnx", "--option", "way=up"], ["way='up' is none", "unpooling"]),
        (["trained.pt", "--out", "a.onnx", "--width", "3"], ["trained.pt says itself", "width"]),
        (["trained.pt", "--out", "a.onnx", "--classes", "a,b,c"], ["got 3 names for 2"]),
        (["broken.pt", "--out", "a.onnx"], ["broken.pt cannot be read", "tile-infer train"]),
        (["unet", "x", "--out", "a.onnx"], ["tile-infer export takes one network"]),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_line_and_nothing_is_written(
    run: Run, checkpoint: Path, tokens: list[str], parts: list[str]
) -> None:
    folder = checkpoint.parent
    (folder / "broken.pt").write_bytes(b"no weights")
    (folder / "there.onnx").write_bytes(b"precious")
    before = sorted(folder.iterdir())
    done = run("export", *tokens)
    assert done.code in (1, 2)
    (line,) = done.err.strip().splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line
    assert sorted(folder.iterdir()) == before
    assert (folder / "there.onnx").read_bytes() == b"precious"


def test_overwrite_replaces_the_file(run: Run, checkpoint: Path) -> None:
    Path("net.onnx").write_bytes(b"old")
    assert run("export", checkpoint, "--out", "net.onnx", "--overwrite").code == 0
    assert Path("net.onnx").stat().st_size > 1000


def test_a_checkpoint_is_told_from_other_pickles(run: Run, checkpoint: Path, image: Write) -> None:
    done = run(image("slide.tif", np.zeros((9, 9), np.uint8)), "--model", checkpoint)
    assert done.code == 1
    assert "is a checkpoint of tile-infer train; give the .onnx file beside it" in done.err
    Path("some.onnx").write_bytes(b"")
    again = run("export", "some.onnx", "--out", "other.onnx")
    assert "is an ONNX file already" in again.err
