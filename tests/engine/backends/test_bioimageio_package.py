"""Descriptions and packages of the Model Zoo: what is opened, from where, and what is refused."""

import hashlib
import json
import os
import socket
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer import predict_large
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import NetworkFacts
from tile_infer.tiler.errors import ModelError, SettingError

from .zoo_models import (
    axis,
    description,
    old_description,
    pack,
    write_folder,
    write_network,
)

DATA = Path(
    os.environ.get(
        "TILE_INFER_TEST_DATA", str(Path(__file__).resolve().parents[3] / "../shared/data")
    )
)
NUCLEI = DATA / "models/bioimageio_unet2d_nuclei_broad"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data in {DATA}")


def image() -> NDArray[np.uint16]:
    return np.random.default_rng(4).gamma(3, 300, (83, 71)).astype(np.uint16)


def facts(path: Path, head: str | None = None) -> NetworkFacts:
    network = open_network(path, head)
    network.close()
    return network.facts


def loop(weights: Path, pixels: NDArray[Any], rim: int = 8) -> NDArray[np.bool_]:
    """Return the mask of one pass over the mirrored image, standardised and without the engine."""
    values = (pixels - pixels.mean()) / (pixels.std() + 1e-6)
    height, width = pixels.shape
    even = (rim + height % 2, rim + width % 2)
    wide = np.pad(values, ((rim, even[0]), (rim, even[1])), mode="reflect").astype(np.float32)
    session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": wide[None, None]})[0][0, 0]
    return np.asarray(1 / (1 + np.exp(-logits[rim : rim + height, rim : rim + width])) > 0.5)


def in_folder(folder: Path) -> Path:
    return write_folder(folder)


def as_rdf(folder: Path) -> Path:
    return write_folder(folder, name="rdf.yaml")


def as_other_name(folder: Path) -> Path:
    return write_folder(folder, name="my model.yml")


def as_weights(folder: Path) -> Path:
    write_folder(folder)
    return folder / "weights.onnx"


def as_format_0_4(folder: Path) -> Path:
    folder.mkdir()
    return write_folder(folder, old_description(write_network(folder / "weights.onnx")))


def as_zip(folder: Path) -> Path:
    write_folder(folder)
    return pack(folder, folder.parent / "package.zip")


def as_zip_with_a_folder(folder: Path) -> Path:
    write_folder(folder, name="rdf.yaml")
    return pack(folder, folder.parent / "package.zip", "tiny-1.0/")


FORMS = [in_folder, as_rdf, as_other_name, as_weights, as_format_0_4, as_zip, as_zip_with_a_folder]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_mask_of_the_description_without_an_option(
    tmp_path: Path, form: Callable[[Path], Path]
) -> None:
    model = form(tmp_path / "here")
    found = predict_large(image(), model)
    expected = loop(tmp_path / "here/weights.onnx", image())
    assert 0.05 < expected.mean() < 0.95
    assert found.plan.exact
    assert np.array_equal(np.asarray(found) == 1, expected)
    assert "(as " in found.plan.notes[0]
    named = "weights" if form is as_weights else "tiny-network-2d"
    assert found.plan.network.name == named


def test_the_bare_network_gives_another_mask(tmp_path: Path) -> None:
    weights = write_network(tmp_path / "weights.onnx")
    with pytest.warns(UserWarning, match="almost black"):
        found = np.asarray(predict_large(image(), weights)) == 1
    assert (found != loop(weights, image())).mean() > 0.01


def test_an_option_wins_over_the_description(tmp_path: Path) -> None:
    model = write_folder(tmp_path)
    asked = predict_large(image(), model, normalize="unit")
    bare = predict_large(image(), write_network(tmp_path / "bare.onnx"), normalize="unit")
    assert np.array_equal(np.asarray(asked), np.asarray(bare))
    assert "as asked" in asked.plan.notes[0]


def test_the_mask_is_called_by_the_networks_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "slide.tif", image())
    said = description(write_network(tmp_path / "weights.onnx"))
    predict_large(tmp_path / "slide.tif", write_folder(tmp_path, said))
    assert (tmp_path / "slide.tiny-network-2d.zarr").is_dir()
    assert facts(write_folder(tmp_path, said | {"id": "brave-fox"})).name == "brave-fox"


def test_nothing_is_asked_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for number, form in enumerate(FORMS):
        assert facts(form(tmp_path / str(number))).preprocessing is not None


def test_unpacked_weights_are_gone_once_the_network_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))
    package = as_zip(tmp_path / "here")
    network = open_network(package)
    assert not list((tmp_path / "unpacked").iterdir())
    assert network.logits(np.zeros((1, 1, 4, 4), np.float32)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("source", ["../evil.onnx", "a/../../evil.onnx", "/evil.onnx"])
@pytest.mark.parametrize("form", ["zip", "folder"])
def test_weights_outside_the_package_are_neither_read_nor_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, form: str
) -> None:
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    weights = write_network(tmp_path / "evil.onnx")
    said = description(weights)
    said["weights"]["onnx"]["source"] = source
    folder = tmp_path / "here"
    model = write_folder(folder, said)
    if form == "zip":
        weights.unlink()
        model = tmp_path / "package.zip"
        with zipfile.ZipFile(model, "w") as archive:
            archive.writestr("bioimageio.yaml", json.dumps(said))
            archive.write(write_network(folder / "other.onnx"), source)
    with pytest.raises(ModelError):
        open_network(model)
    assert not list(unpacked.iterdir())
    assert (tmp_path / "evil.onnx").exists() == (form == "folder")


@pytest.mark.parametrize("form", [in_folder, as_weights, as_zip])
def test_weights_that_are_not_those_described_are_refused(
    tmp_path: Path, form: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    said = description(write_network(folder / "weights.onnx"))
    write_folder(folder, said)
    write_network(folder / "weights.onnx", classes=2)
    digest = hashlib.sha256((folder / "weights.onnx").read_bytes()).hexdigest()
    model = folder / "weights.onnx"
    if form is in_folder:
        model = folder / "bioimageio.yaml"
    elif form is as_zip:
        model = pack(folder, tmp_path / "package.zip")
    with pytest.raises(ModelError, match=rf"weights\.onnx is not the file.*{digest[:12]}"):
        open_network(model)


def test_a_description_beside_other_weights_is_not_theirs(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert facts(write_network(tmp_path / "other.onnx")).origins == ()
    (tmp_path / "rdf.yaml").write_text("weights.onnx")  # the first description counts
    assert facts(tmp_path / "weights.onnx").preprocessing is not None


def change(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda said: said.update(fields)


def remove(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda said: said.pop(name)


def weights(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return change(weights=entries)


TORCHSCRIPT = {"source": "weights.pt", "pytorch_version": "2.1"}
KERAS = {"source": "weights.h5", "tensorflow_version": "2.1"}
ONNX = {"source": "weights.onnx", "opset_version": 17}

BAD: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (remove("inputs"), "no valid description: inputs: Field required"),
    (change(format_version="nonsense"), "no valid description"),
    (weights(keras_hdf5=KERAS), "weights for keras_hdf5 only; onnx or torchscript"),
    (weights(onnx=ONNX | {"source": "https://example.com/w.onnx"}), "only files beside it"),
    (weights(onnx=ONNX | {"source": "gone.onnx", "sha256": "a" * 64}), "cannot be read"),
    (weights(torchscript=TORCHSCRIPT), r"weights\.pt"),
]


@pytest.mark.parametrize(("spoil", "why"), BAD)
def test_what_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], why: str
) -> None:
    said = description(write_network(tmp_path / "weights.onnx"))
    spoil(said)
    with pytest.raises(ModelError, match=why) as caught:
        open_network(write_folder(tmp_path, said))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"a: [", b"\x00\x01", b"type: dataset\nformat_version: 0.3.0\n"]
)
@pytest.mark.parametrize("form", ["yaml", "zip"])
def test_a_damaged_description_is_refused_in_one_line(
    tmp_path: Path, content: bytes, form: str
) -> None:
    model = tmp_path / "rdf.yaml"
    model.write_bytes(content)
    if form == "zip":
        model = tmp_path / "package.zip"
        pack(tmp_path, model)
    with pytest.raises(ModelError, match=r"rdf\.yaml") as caught:
        open_network(model)
    assert "\n" not in str(caught.value)


def test_a_zip_that_is_no_package_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ModelError, match="not a readable package"):
        open_network(tmp_path / "text.zip")
    with pytest.raises(ModelError, match=r"gone\.zip cannot be read"):
        open_network(tmp_path / "gone.zip")
    write_network(tmp_path / "weights.onnx")
    with pytest.raises(ModelError, match=r"holds no bioimageio\.yaml or rdf\.yaml"):
        open_network(pack(tmp_path, tmp_path / "bare.zip"))
    (tmp_path / "here").mkdir()
    (tmp_path / "here/rdf.yaml").write_text(json.dumps(description()))
    with pytest.raises(ModelError, match=r"weights\.onnx, which are not in it"):
        open_network(pack(tmp_path / "here", tmp_path / "half.zip"))


def test_a_damaged_zip_is_refused_in_one_line(tmp_path: Path) -> None:
    package = as_zip(tmp_path / "here")
    content = bytearray(package.read_bytes())
    content[60:400] = bytes(340)
    package.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_network(package)
    assert "\n" not in str(caught.value)


def test_one_of_several_outputs_is_chosen_by_name_or_number(tmp_path: Path) -> None:
    network = write_network(tmp_path / "weights.onnx", outputs=("first", "second"))
    model = write_folder(tmp_path, description(network, more_outputs=("borders",)))
    with pytest.raises(SettingError, match=r"2 outputs \(0: prediction, 1: borders\)"):
        open_network(model)
    with pytest.raises(SettingError, match="no output 'third'"):
        open_network(model, "third")
    assert [facts(model, head).head for head in ("prediction", "borders", "1")] == [
        "first",
        "second",
        "second",
    ]


def test_several_inputs_and_volumes_are_refused(tmp_path: Path) -> None:
    said = description(write_network(tmp_path / "weights.onnx"))
    volume = json.loads(json.dumps(said))
    volume["inputs"][0]["axes"].insert(2, axis("z", 8))
    with pytest.raises(ModelError, match="axes batch, channel, z, y, x; only planes"):
        open_network(write_folder(tmp_path, volume))
    second = json.loads(json.dumps(said["inputs"][0])) | {"id": "mask"}
    said["inputs"].append(second)
    with pytest.raises(ModelError, match=r"2 inputs \(raw, mask\)"):
        open_network(write_folder(tmp_path, said))


def test_the_pixels_size_is_in_micrometers_where_its_unit_is_said(tmp_path: Path) -> None:
    said = description(write_network(tmp_path / "weights.onnx"))
    assert facts(write_folder(tmp_path, said)).pixel_size is None
    for tensor in (said["inputs"][0], said["outputs"][0]):
        for side, scale in zip(tensor["axes"][2:], (250, 500), strict=True):
            side.update(unit="nanometer", scale=scale)
    assert facts(write_folder(tmp_path, said)).pixel_size == (0.25, 0.5)


def test_our_json_beside_the_weights_adds_to_the_description(tmp_path: Path) -> None:
    model = write_folder(tmp_path)
    (tmp_path / "weights.tile_infer.json").write_text('{"classes": ["none", "nucleus"]}')
    found = facts(model)
    assert found.class_names == ("none", "nucleus")
    assert dict(found.origins)["class_names"] == "weights.tile_infer.json"
    assert dict(found.origins)["preprocessing"] == "bioimageio.yaml"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"normalize": "unit"}, "normalize: unit and zscore"),
        ({"mean": [0.5], "std": [1]}, r"normalize: \[0.5\] and zscore"),
        ({"activation": "softmax"}, "activation: sigmoid and softmax"),
    ],
)
def test_our_json_that_contradicts_the_description_is_an_error_that_names_both(
    tmp_path: Path, said: dict[str, Any], shown: str
) -> None:
    model = write_folder(tmp_path)
    (tmp_path / "weights.tile_infer.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=shown) as caught:
        open_network(model)
    assert "bioimageio.yaml" in str(caught.value)
    assert "weights.tile_infer.json" in str(caught.value)
    (tmp_path / "weights.tile_infer.json").write_text('{"normalize": "zscore"}')
    open_network(model)


@with_data
@pytest.mark.parametrize("form", ["yaml", "zip", "weights"])
def test_the_nuclei_network_finds_nuclei_without_an_option(tmp_path: Path, form: str) -> None:
    model = NUCLEI / {"weights": "weights.onnx"}.get(form, "bioimageio.yaml")
    if form == "zip":
        model = tmp_path / "package.zip"
        with zipfile.ZipFile(model, "w") as archive:
            for name in ("bioimageio.yaml", "weights.onnx"):
                archive.write(NUCLEI / name, name)
    source = tifffile.imread(DATA / "nuclei/img2d.tif")
    truth = tifffile.imread(DATA / "nuclei/mask2d.tif") > 0
    found = predict_large(source, model)
    mask = np.asarray(found) == 1
    assert round(float((mask & truth).sum() / (mask | truth).sum()), 4) == 0.7846
    assert found.plan.exact
    assert any("not 32 as bioimageio.yaml says" in note for note in found.plan.notes)


@with_data
def test_the_bare_nuclei_network_finds_as_much_with_an_option_and_nothing_without(
    tmp_path: Path,
) -> None:
    model = tmp_path / "bare.onnx"
    model.write_bytes((NUCLEI / "weights.onnx").read_bytes())
    source = tifffile.imread(DATA / "nuclei/img2d.tif")
    said = np.asarray(predict_large(source, NUCLEI / "bioimageio.yaml"))
    assert np.array_equal(np.asarray(predict_large(source, model, normalize="zscore")), said)
    with pytest.warns(UserWarning, match="almost black"):
        assert not np.asarray(predict_large(source, model)).any()
