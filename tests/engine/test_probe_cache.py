"""A file is measured once; what else the measurement depends on is measured again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from tile_infer import plan_prediction
from tile_infer.engine import probe_cache
from tile_infer.engine.backends import open_network
from tile_infer.engine.cache import cache_folder
from tile_infer.engine.inspection import inspect
from tile_infer.engine.probe import Probe
from tile_infer.engine.probe_cache import inspect_once
from tile_infer.engine.settings import Settings

from .test_backends import WEIGHTS, write_onnx

IMAGE = np.zeros((50, 60, 2), np.uint8)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Probe]:
    """Return what was really measured."""
    found: list[Probe] = []

    def watched(*arguments: Any) -> Probe:
        found.append(inspect(*arguments))
        return found[-1]

    monkeypatch.setattr(probe_cache, "inspect", watched)
    return found


def test_a_file_is_measured_once_and_gives_the_same_plan(
    tmp_path: Path, measured: list[Probe]
) -> None:
    model = write_onnx(tmp_path / "net.onnx", WEIGHTS)
    plans = [plan_prediction(IMAGE, model) for _ in range(2)]
    assert len(measured) == 1
    assert plans[0] == plans[1]
    assert plans[1].probe == measured[0]


@pytest.mark.parametrize("settings", [{"tolerance": 0.01}, {"halo": 3}, {"tile": (30, 30)}])
def test_other_settings_are_measured_again(
    tmp_path: Path, measured: list[Probe], settings: Any
) -> None:
    network = open_network(write_onnx(tmp_path / "net.onnx", WEIGHTS))
    for given in (Settings(), Settings(**settings), Settings(**settings), Settings()):
        inspect_once(network, given, 2, 1.0)
    assert len(measured) == 2


def test_other_weights_and_numbers_are_measured_again(
    tmp_path: Path, measured: list[Probe]
) -> None:
    for number, (weights, largest) in enumerate(((WEIGHTS, 1.0), (2 * WEIGHTS, 1.0), (WEIGHTS, 9))):
        network = open_network(write_onnx(tmp_path / "net.onnx", weights))
        inspect_once(network, Settings(), 2, largest)
        assert len(measured) == number + 1


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"verdict": "bounded"}'])
def test_a_damaged_file_is_measured_again(
    tmp_path: Path, measured: list[Probe], damage: str
) -> None:
    network = open_network(write_onnx(tmp_path / "net.onnx", WEIGHTS))
    first = inspect_once(network, Settings(), 2, 1.0)
    (kept,) = (cache_folder() / "probes").iterdir()
    kept.write_text(damage)
    assert inspect_once(network, Settings(), 2, 1.0) == first
    assert len(measured) == 2
    assert json.loads(kept.read_text())["verdict"] == "bounded", "mended"


def test_a_module_is_measured_each_time_that_it_is_opened(measured: list[Probe]) -> None:
    network = nn.Conv2d(2, 2, 3)
    for _ in range(2):
        plan_prediction(IMAGE, network)
    assert len(measured) == 2
    assert not (cache_folder() / "probes").exists()


def test_a_module_that_is_open_is_measured_once_for_all_images(measured: list[Probe]) -> None:
    network = open_network(nn.Conv2d(2, 2, 3))
    for given in (Settings(), Settings(halo=2), Settings()):
        inspect_once(network, given, 2, 1.0)
    assert len(measured) == 2
