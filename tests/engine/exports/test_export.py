"""Which format a name asks for, and that a file is there whole or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tile_infer import OutputError, SettingError
from tile_infer.engine.exports import check_suffix, export

from .finished_masks import finished, read_features

NAMES = ["m.ome.tif", "m.OME.TIFF", "m.tif", "m.tiff", "m.geojson"]


@pytest.mark.parametrize("name", NAMES)
def test_the_ending_chooses_the_format(name: str, tmp_path: Path) -> None:
    export(finished(np.ones((5, 6), np.uint8)), tmp_path / name)
    if name == "m.geojson":
        assert len(read_features(tmp_path / name)) == 1
        return
    with tifffile.TiffFile(tmp_path / name) as tiff:
        assert tiff.is_ome == (".ome." in name.lower())


@pytest.mark.parametrize("name", ["m.png", "m", "geojson", "m.tif.zip"])
def test_an_unknown_ending_is_refused_with_those_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"\.ome\.tif.*\.geojson; got " + name):
        export(finished(np.ones((5, 6), np.uint8)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    assert check_suffix(tmp_path / "m.tif") == ".tif"


@pytest.mark.parametrize("name", ["m.ome.tif", "m.tif", "m.geojson"])
@pytest.mark.parametrize("before", [None, b"an older file"])
def test_an_export_that_is_cut_short_leaves_what_was_there(
    name: str, before: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = finished(np.tile(np.eye(10, dtype=np.uint8), (200, 50)))
    if before:
        (tmp_path / name).write_bytes(before)
    take = zarr.Array.__getitem__
    partial: list[list[str]] = []

    def interrupted(array: zarr.Array[Any], selection: Any) -> Any:
        if len(partial) == 3:
            raise KeyboardInterrupt
        partial.append([path.name for path in tmp_path.iterdir() if path.name.endswith("partial")])
        return take(array, selection)

    monkeypatch.setattr(zarr.Array, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(prediction, tmp_path / name)
    assert all(len(names) == 1 for names in partial), "it was being written"
    if before:
        assert (tmp_path / name).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [name] * bool(before)


def test_a_folder_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere.m\.tif cannot be written: No such file"):
        export(finished(np.ones((5, 6), np.uint8)), tmp_path / "nowhere" / "m.tif")
