"""A checkpoint builds the network again, and a file that is none runs nothing."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tile_infer.engine.backends.metadata import Metadata
from tile_infer.engine.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tile_infer.engine.networks.registry import NETWORKS, build
from tile_infer.tiler.errors import ModelError, OutputError, SettingError

OPTIONS: dict[str, Any] = {"in_channels": 3, "classes": 2, "width": 2}


def saved(path: Path, **changed: Any) -> Path:
    torch.manual_seed(0)
    state = build("unet", **OPTIONS).state_dict()
    metadata = Metadata(classes=("background", "nucleus"), mean=(0.1,), std=(0.2,))
    save_checkpoint(path, Checkpoint("unet", OPTIONS, state, metadata, **changed))
    return path


def test_the_network_comes_back_with_its_weights_and_its_words(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("unet", **OPTIONS).eval()
    found = load_checkpoint(saved(tmp_path / "net.pt"))
    assert found.metadata == Metadata(classes=("background", "nucleus"), mean=(0.1,), std=(0.2,))
    image = torch.rand(1, 3, 188, 188)
    with torch.inference_mode():
        assert torch.equal(found.build()(image), network(image))
        torch.manual_seed(1)
        assert not torch.equal(build("unet", **OPTIONS).eval()(image), network(image))


def test_what_a_training_needs_comes_back(tmp_path: Path) -> None:
    training = {"step": 7, "random": [2**100, "PCG64"], "momentum": {"a": torch.ones(2)}}
    found = load_checkpoint(saved(tmp_path / "net.pt", training=training)).training
    assert (found["step"], found["random"]) == (7, [2**100, "PCG64"])
    assert torch.equal(found["momentum"]["a"], torch.ones(2))


def test_an_interrupted_write_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "net.pt", training={"step": 1})

    def torn(content: object, partial: Path) -> None:
        partial.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OutputError, match="No space left"):
        saved(path, training={"step": 2})
    assert load_checkpoint(path).training == {"step": 1}


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pt"
    if how == "torch":
        torch.save({"network": Harmful()}, path)
    else:
        path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()
    pickle.loads(pickle.dumps(Harmful()))  # what a trusting reader would have done
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [None, b"", b"no weights", {"state": {}}, [1, 2]])
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "net.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match=r"net\.pt .* give one that tile-infer train wrote") as no:
        load_checkpoint(path)
    assert "\n" not in str(no.value)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path: Path) -> None:
    wider = Checkpoint("unet", {**OPTIONS, "width": 3}, build("unet", **OPTIONS).state_dict())
    with pytest.raises(ModelError, match="size mismatch") as caught:
        wider.build()
    assert "\n" not in str(caught.value)


def test_metadata_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "metadata": {"clases": ["a"]}}, path)
    with pytest.raises(ModelError, match="'clases' is no key"):
        load_checkpoint(path)


def test_an_unknown_network_or_option_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingError, match=r"network='vnet' is none; use one of unet, "):
        build("vnet")
    with pytest.raises(SettingError, match="network unet has no widht; use in_channels, classes"):
        build("unet", widht=3)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_builds_what_its_entry_says(name: str) -> None:
    network = build(name, in_channels=2, classes=3, width=2)
    assert (network.in_channels, network.classes) == (2, 3)
    assert type(network).__name__ == NETWORKS[name].builder
    for key, value in NETWORKS[name].preset.items():
        if key != "width":
            assert getattr(network, key, value) == value
