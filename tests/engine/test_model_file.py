"""A file is what is in it, whatever its name; others are refused with the way to export."""

import json
import pickle
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.model_file import file_kind
from tile_infer.tiler.errors import ModelError, SettingError


class Bomb:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.trace,)  # type: ignore[return-value]


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return path


def written(path: Path, start: bytes) -> Path:
    path.write_bytes(start + bytes(64))
    return path


def folder(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).touch()
    return path


def safetensors(path: Path) -> Path:
    header = json.dumps({"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    return path


def test_foreign_files_are_refused_in_one_line_that_says_how_to_export(tmp_path: Path) -> None:
    cases = {
        safetensors(tmp_path / "a.bin"): "safetensors file: weights without layers",
        written(tmp_path / "a.h5", b"\x89HDF\r\n\x1a\n"): "a Keras file; export it",
        zipped(tmp_path / "a.keras", "config.json", "metadata.json"): "a Keras file; export it",
        folder(tmp_path / "saved", "saved_model.pb"): "a TensorFlow network; export it",
        written(tmp_path / "frozen.pb", b"\x0a"): "a TensorFlow network; export it",
        written(tmp_path / "a.tflite", b"\x1c\0\0\0TFL3"): "a TensorFlow Lite file; export it",
        written(tmp_path / "a.xml", b"<?xml version='1.0'?>"): "an OpenVINO network; give the ONNX",
        zipped(tmp_path / "a.pt2", "a/data/aotinductor/model/x.so"): "compiled for one machine",
        folder(tmp_path / "empty"): "a folder; give the path",
        folder(tmp_path / "zoo", "rdf.yaml"): r"give the file in it: .*zoo.rdf\.yaml$",
        written(tmp_path / "picture", b"\x89PNG"): r"no network of a kind that is known \(ONNX",
        written(tmp_path / "nothing.onnx", b"\x08"): "is not a readable ONNX file",
        zipped(tmp_path / "b.zip", "readme.txt"): "holds no bioimageio.yaml",
        written(tmp_path / "c.zip", b"PK\x03\x04"): "zip",
        tmp_path / "missing.pt": "does not exist; check the path",
        tmp_path / "missing.yaml": "check the path",
    }
    texts = {
        "notes.txt": ("some notes\n", r"no network of a kind that is known \(ONNX"),
        "notes.onnx": ("short", r"no network of a kind that is known \(ONNX"),
        "graph.onnxtxt": ("some notes\n", "is not a readable ONNX file"),
        "nothing": ("", "is empty; get a good copy"),
    }
    for name, (text, message) in texts.items():
        (tmp_path / name).write_text(text)
        cases[tmp_path / name] = message
    for path, message in cases.items():
        for trust in (False, True):
            with pytest.raises(ModelError, match=message) as caught:
                open_network(path, trust_model=trust)
            assert "\n" not in str(caught.value)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "a.onnx", "a"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, name: str, trust: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / name
    bomb = Bomb(trace)
    pickle.loads(pickle.dumps(bomb))
    assert trace.exists(), "opening it would leave a trace"
    trace.unlink()
    path.write_bytes(pickle.dumps(bomb))
    other = tmp_path / f"z{name}"
    torch.save({"bomb": bomb}, other)
    for file in (path, other):
        with pytest.raises(ModelError, match="a pickled PyTorch module or state dict"):
            open_network(file, trust_model=trust)
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_alone_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.pt"
    weights = nn.Conv2d(1, 2, 3).state_dict()
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"export it from there: torch\.onnx\.export") as caught:
        open_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("net/constants.pkl", "net/code/a.py", "net/data.pkl"), "torchscript"),
        (("net/models/model.json", "net/archive_format"), "exported"),
        (("models/model.json", "archive_format"), "exported"),
        (("serialized_exported_program.json", "version"), "exported"),
    ],
)
def test_what_can_run_code_is_opened_only_where_it_is_trusted(
    tmp_path: Path, names: tuple[str, ...], kind: str
) -> None:
    path = zipped(tmp_path / "network.onnx", *names)
    assert file_kind(path) == kind
    with pytest.raises(
        SettingError, match=r"can run code .* use trust_model if you trust"
    ) as caught:
        open_network(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="cannot be opened") as damaged:
        open_network(path, trust_model=True)
    assert "\n" not in str(damaged.value)


def test_an_onnx_file_needs_no_trust_and_no_suffix(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["a"], ["b"])],
        "net",
        [value("a", onnx.TensorProto.FLOAT, [1, 1, 8, 8])],
        [value("b", onnx.TensorProto.FLOAT, [1, 1, 8, 8])],
    )
    onnx.save(onnx.helper.make_model(graph), path)
    assert open_network(path).facts.backend == "onnx"
