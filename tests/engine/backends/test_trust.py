"""Nothing in a model's file is run unless the file is trusted."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tile_infer.cli.main import main
from tile_infer.engine.backends import open_network
from tile_infer.tiler.errors import ModelError, SettingError, TileInferError

from .payloads import exported, pickled, saved, script, write_script
from .zoo_models import description, pack, write_folder, write_network

Write = Callable[[Path, Path], Path]


def opened(path: Path, *, trust: bool = False) -> TileInferError | None:
    """Try to open a file; return the error, whose text is one line."""
    try:
        open_network(path, trust_model=trust).close()
    except TileInferError as error:
        return error if "\n" not in str(error) else None
    return None


@pytest.mark.parametrize("write", [pickled, saved, exported, script])
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.pt2", "a.onnx", "a.zip", "a.h5", "a"])
def test_no_kind_of_file_runs_its_payload(tmp_path: Path, write: Write, name: str) -> None:
    trace = tmp_path / "trace"
    path = write(tmp_path / name, trace)
    error = opened(path)
    assert isinstance(error, SettingError | ModelError)
    for command in (["inspect", path], ["slide.tif", "--model", path], ["export", path]):
        extra = ["--out", tmp_path / "out.onnx"] if command[0] == "export" else []
        assert main([str(token) for token in [*command, *extra]]) != 0
    assert not trace.exists()


def test_a_pickle_is_not_opened_even_where_it_is_trusted(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for write in (pickled, saved):
        assert isinstance(opened(write(tmp_path / "a.pt", trace), trust=True), ModelError)
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore")
def test_the_payloads_do_run_where_they_are_let(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # Torch's own log is malformed
    trace = tmp_path / "trace"
    pickle.loads(pickled(tmp_path / "a", trace).read_bytes())
    assert trace.exists()
    trace.unlink()
    torch.load(saved(tmp_path / "b", trace), weights_only=False)
    assert trace.exists()
    trace.unlink()
    opened(exported(tmp_path / "c.pt2", trace), trust=True)
    assert trace.exists()


def python_network(folder: Path, trace: Path, **weights: Any) -> dict[str, Any]:
    """Return a description whose layers are Python code beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "network.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).touch()\n")
    saved(folder / "weights.pt", trace)
    said = description()
    code = {"callable": "Net", "source": "network.py", "sha256": "0" * 64}
    state = {"source": "weights.pt", "pytorch_version": "2.1", "architecture": code}
    said["weights"] = {"pytorch_state_dict": state, **weights}
    return said


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("trust", [False, True])
def test_layers_in_python_beside_a_description_are_not_run(
    tmp_path: Path, packed: bool, trust: bool
) -> None:
    trace, folder = tmp_path / "trace", tmp_path / "zoo"
    path = write_folder(folder, python_network(folder, trace))
    if packed:
        path = pack(folder, tmp_path / "package.zip")
    error = opened(path, trust=trust)
    assert isinstance(error, ModelError)
    assert "pytorch_state_dict" in str(error)
    assert not trace.exists()
    exec((folder / "network.py").read_text())
    assert trace.exists(), "running it would leave a trace"


def test_weights_that_run_no_code_are_taken_where_python_lies_beside_them(tmp_path: Path) -> None:
    trace, folder = tmp_path / "trace", tmp_path / "zoo"
    said = python_network(folder, trace)
    write_network(folder / "weights.onnx")
    said["weights"]["onnx"] = {"source": "weights.onnx", "opset_version": 17}
    assert opened(write_folder(folder, said)) is None
    assert not trace.exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_description_does_not_make_torchscript_trusted(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    write_script(folder / "weights.pt", nn.Conv2d(1, 1, 1))
    said = description(halo=None)
    said["weights"] = {"torchscript": {"source": "weights.pt", "pytorch_version": "2.1"}}
    path = write_folder(folder, said)
    if packed:
        path = pack(folder, tmp_path / "package.zip")
    error = opened(path)
    assert isinstance(error, SettingError)
    assert "use trust_model" in str(error)
    assert opened(path, trust=True) is None
