"""Rates are kept for each network, device, precision and version; a broken cache does no harm."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tile_infer.engine import cache, calibration_cache
from tile_infer.engine.cache import cache_folder
from tile_infer.engine.calibration_cache import rates_path, store_rates, stored_rates

from .layouts import FACTS, layouts

LAYOUT = layouts(3000)[0]


def test_what_was_stored_is_found_and_added_to(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "yet.json"
    assert stored_rates(path) == {}
    store_rates(path, {"one": 0.25})
    store_rates(path, {"two": 1.5})
    assert stored_rates(path) == {"one": 0.25, "two": 1.5}
    assert [each.name for each in path.parent.iterdir()] == ["yet.json"], "nothing is left over"


@pytest.mark.parametrize(
    "damage", ["", "{", "[1]", "7", '{"one": "fast"}', '{"one": null}', '{"one": [1]}', "\x00"]
)
def test_a_damaged_file_is_no_file_and_is_replaced(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rates.json"
    path.write_text(damage)
    assert stored_rates(path) == {}
    store_rates(path, {"one": 0.25})
    assert json.loads(path.read_text()) == {"one": 0.25}


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_is_none(tmp_path: Path, rate: float) -> None:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps({"one": rate, "two": 1.0}))
    assert stored_rates(path) == {"two": 1.0}


def test_a_cache_that_cannot_be_written_or_read_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store_rates(tmp_path / "file" / "rates.json", {"one": 1.0})
    assert stored_rates(tmp_path / "file" / "rates.json") == {}
    (tmp_path / "rates.json").mkdir()
    store_rates(tmp_path / "rates.json", {"one": 1.0})
    assert stored_rates(tmp_path / "rates.json") == {}


def test_the_file_depends_on_all_that_a_rate_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = rates_path(FACTS, LAYOUT)
    recipe, execution = LAYOUT.recipe, LAYOUT.execution
    others = [
        rates_path(replace(FACTS, sha256="other"), LAYOUT),
        rates_path(FACTS, replace(LAYOUT, recipe=replace(recipe, dtype="uint16"))),
        rates_path(FACTS, replace(LAYOUT, recipe=replace(recipe, labels=False))),
        rates_path(FACTS, replace(LAYOUT, execution=replace(execution, precision="bf16"))),
    ]
    for module, name in ((calibration_cache, "device_name"), (cache, "version")):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, lambda *_: 99)
            others.append(rates_path(FACTS, LAYOUT))
    assert len({usual, *others}) == 1 + len(others)
    # Tiles of one network share a file, and so do images that are normalised by other values.
    assert rates_path(FACTS, layouts(3000)[-1]) == usual
    assert rates_path(FACTS, replace(LAYOUT, recipe=replace(recipe, offset=(1.0, 2.0)))) == usual


def test_the_cache_lies_where_the_user_says_or_where_caches_lie(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TILE_INFER_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TILE_INFER_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tile-infer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tile-infer"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "tile-infer"
