"""The mask on its way: lower levels, attributes, records, chunks, and whose folder it is."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import nn
from zarr.storage import LocalStore, MemoryStore

from tile_infer import OutputError, Plan, SettingError, plan_prediction, predict_large
from tile_infer.engine.stitcher.mask import Mask
from tile_infer.engine.stitcher.pyramid import block_levels, box_at, halve, level_shapes
from tile_infer.engine.stitcher.records import Record
from tile_infer.engine.stitcher.store import claim, present_chunks, stored_plan
from tile_infer.tiler.axis import AxisGrid
from tile_infer.tiler.box import Box
from tile_infer.tiler.grid import Grid

from .geotiffs import write_geotiff

SIDES = st.integers(1, 9)
LABELS = arrays(np.uint8, st.tuples(SIDES, SIDES), elements=st.integers(0, 3))


def commonest(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Do what `halve` does, pixel by pixel and in the words of its docstring."""
    height, width = labels.shape
    found = np.zeros((-(-height // 2), -(-width // 2)), labels.dtype)
    for y, x in np.ndindex(found.shape):
        rows, columns = (2 * y, min(2 * y + 1, height - 1)), (2 * x, min(2 * x + 1, width - 1))
        four = [labels[row, column] for row in rows for column in columns]
        most = max(Counter(four).values())
        found[y, x] = next(label for label in four if four.count(label) == most)
    return found


@given(LABELS)
def test_halving_keeps_the_commonest_of_four(labels: NDArray[np.uint8]) -> None:
    halved = halve(labels)
    assert halved.dtype == labels.dtype
    np.testing.assert_array_equal(halved, commonest(labels))


def test_halving_every_possible_four() -> None:
    fours = np.array(list(np.ndindex(4, 4, 4, 4)), np.uint16).reshape(-1, 2, 2)
    labels = np.concatenate(list(fours), axis=1)
    np.testing.assert_array_equal(halve(labels), commonest(labels))


def plan_of(shape: tuple[int, int], chunk: int, block: tuple[int, int]) -> Plan:
    """Return a plan whose chunks and blocks are chosen freely."""
    plan = plan_prediction(np.zeros((64, 64), np.uint8), nn.Conv2d(1, 3, 3), workers=1)
    axes = [
        AxisGrid(length, chunk + 2, 1, chunk, chunk, chunk, chunk * chunks)
        for length, chunks in zip(shape, block, strict=True)
    ]
    return replace(plan, grid=Grid(*axes))


def mask_of(plan: Plan, store: Any) -> Mask:
    claim(store, plan.to_dict())
    return Mask(store, plan)


def write_block(mask: Mask, block: int, labels: NDArray[np.uint8]) -> None:
    box = mask.plan.grid.block_box(block)
    part = labels[box.slices]
    mask.write(Record.of(block, part, 3, 255), box, part, None)


def random_labels(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 3, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(2049, 1025), (1026, 3001), (37, 4099), (4100, 1), (1, 1)])
@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 2), (4, 4), (8, 1)])
def test_each_level_is_half_of_the_one_above(
    shape: tuple[int, int], block: tuple[int, int]
) -> None:
    labels = random_labels(shape)
    mask = mask_of(plan_of(shape, 256, block), MemoryStore())
    for number in reversed(range(mask.plan.grid.blocks)):
        write_block(mask, number, labels)
    before = mask.finished
    mask.finish()
    assert (before, mask.finished) == (False, True)
    expected: NDArray[np.generic] = labels
    for level, size in zip(mask.levels, level_shapes(shape), strict=True):
        assert level.shape == expected.shape == size
        np.testing.assert_array_equal(level[:], expected)
        expected = commonest(expected) if expected.size < 50_000 else halve(expected)
    assert max(mask.levels[-1].shape) <= 1024


def test_a_chunk_that_is_written_twice_counts_twice() -> None:
    labels = random_labels((2049, 1025))
    mask = mask_of(plan_of(labels.shape, 256, (2, 2)), MemoryStore())
    for number in range(mask.plan.grid.blocks):
        write_block(mask, number, labels)
    mask.finish()
    once = sum(prod(level.cdata_shape) for level in mask.levels)
    assert mask.chunks_written == once
    write_block(mask, 0, labels)
    assert mask.chunks_written == once + 4 + 1, "a block of 2 x 2 chunks, and one of level 1"


def test_a_block_makes_the_levels_whose_chunks_are_its_own() -> None:
    def levels(shape: tuple[int, int], block: tuple[int, int]) -> int:
        return block_levels(plan_of(shape, 256, block).grid)

    assert levels((5000, 5000), (1, 1)) == 0
    assert levels((5000, 5000), (2, 2)) == 1
    assert levels((5000, 5000), (3, 2)) == 0
    assert levels((5000, 5000), (4, 4)) == 2
    assert levels((5000, 5000), (8, 4)) == 2
    assert levels((200, 5000), (1, 4)) == 2, "the block spans the image, so all of y is its own"
    assert levels((5000, 5000), (20, 20)) == 3, "the only block makes every level"
    assert box_at(Box.of(512, 771, 0, 1), 1) == Box.of(256, 386, 0, 1)


def test_attributes_are_those_of_ome_zarr(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2050, 30), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        pixels,
        metadata={
            "axes": "YX",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeX": 0.25,
            "PhysicalSizeXUnit": "µm",
        },
    )
    predict_large(tmp_path / "a.ome.tif", nn.Conv2d(1, 3, 3), tmp_path / "m.zarr", workers=1)
    group = zarr.open_group(tmp_path / "m.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    ome: Any = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (multiscale,) = ome["multiscales"]
    assert multiscale["axes"] == [
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    scales, centres = [], []
    for dataset in multiscale["datasets"]:
        scale, translation = dataset["coordinateTransformations"]
        assert (scale["type"], translation["type"]) == ("scale", "translation")
        scales.append(scale["scale"])
        # The outer edge of the first pixel is the image's, at every level.
        centres.append(np.subtract(translation["translation"], np.divide(scale["scale"], 2)))
        array: Any = group[dataset["path"]]
        assert array.metadata.dimension_names == ("y", "x")
    assert scales == [[0.5, 0.25], [1.0, 0.5], [2.0, 1.0]]
    np.testing.assert_allclose(centres, [[-0.25, -0.125]] * 3)
    ours: Any = group.attrs["tile_infer"]
    assert ours["complete"] is True
    assert ours["classes"] == ["class 0", "class 1", "class 2"]
    assert "image-label" not in ome
    assert str(tmp_path) not in json.dumps(dict(group.attrs))


def test_the_mask_says_where_it_lies_in_its_own_pixels(tmp_path: Path) -> None:
    levels = [np.zeros(size, np.uint8) for size in ((401, 600), (201, 300))]
    path = write_geotiff(tmp_path / "a.tif", levels, size=(20.0, 10.0))
    for level, factor in ((0, 1), (1, 2)):
        found = predict_large(
            path, nn.Conv2d(1, 3, 3), tmp_path / f"{level}.zarr", level=level, workers=1
        )
        ours: Any = found.group.attrs["tile_infer"]
        assert ours["georeference"] == {
            "crs": "EPSG:32633",
            "transform": [10.0 * factor, 0.0, 500_000.0, 0.0, -20.0 * factor, 5_600_000.0],
        }
        ome: Any = found.group.attrs["ome"]
        (multiscale,) = ome["multiscales"]
        assert multiscale["axes"][0] == {"name": "y", "type": "space", "unit": "meter"}
        scale = multiscale["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale == [20.0 * factor, 10.0 * factor]


def test_a_mask_of_an_image_without_a_place_has_none() -> None:
    found = predict_large(np.zeros((9, 9), np.uint8), nn.Conv2d(1, 3, 3), workers=1)
    ours: Any = found.group.attrs["tile_infer"]
    assert "georeference" not in ours


def test_without_pixel_size_lengths_are_pixels() -> None:
    found = predict_large(np.zeros((9, 1500), np.uint8), nn.Conv2d(1, 3, 3), workers=1)
    ome: Any = found.group.attrs["ome"]
    (multiscale,) = ome["multiscales"]
    assert multiscale["axes"] == [{"name": name, "type": "space"} for name in "yx"]
    assert [d["coordinateTransformations"] for d in multiscale["datasets"]] == [
        [
            {"type": "scale", "scale": [1.0, 1.0]},
            {"type": "translation", "translation": [0.0, 0.0]},
        ],
        [
            {"type": "scale", "scale": [2.0, 2.0]},
            {"type": "translation", "translation": [0.5, 0.5]},
        ],
    ]


def test_what_is_not_written_yet_reads_as_not_computed() -> None:
    labels = random_labels((600, 700))
    mask = mask_of(plan_of((600, 700), 256, (1, 1)), MemoryStore())
    write_block(mask, 4, labels)
    seen = np.asarray(mask.levels[0][:])
    np.testing.assert_array_equal(seen[256:512, 256:512], labels[256:512, 256:512])
    seen[256:512, 256:512] = 255
    assert (seen == 255).all()


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_done_is_a_record_with_all_its_chunks(tmp_path: Path, kind: str) -> None:
    store = MemoryStore() if kind == "memory" else LocalStore(tmp_path / "m.zarr")
    labels = random_labels((600, 1300))
    plan = plan_of((600, 1300), 256, (2, 2))
    mask = mask_of(plan, store)
    assert mask.done() == {}
    for block in (0, 5):
        write_block(mask, block, labels)
    present = present_chunks(store, mask.levels[0])
    assert [*map(tuple, np.argwhere(present))] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 4), (2, 5)]
    again = Mask(store, plan)
    done = again.done()
    assert sorted(done) == [0, 5]
    counts = np.bincount(labels[512:, 1024:].ravel(), minlength=3)
    assert done[5] == Record(5, tuple(counts.tolist()), 0)
    _remove(store, "1/c/0/0")
    assert sorted(Mask(store, plan).done()) == [5]
    _remove(store, "0/c/2/5")
    assert Mask(store, plan).done() == {}


def _remove(store: Any, key: str) -> None:
    from zarr.core.sync import sync

    assert sync(store.exists(key))
    sync(store.delete(key))


def test_a_record_counts_each_label_and_what_is_none() -> None:
    labels = np.array([[0, 2, 2], [255, 2, 0]], np.uint8)
    assert Record.of(7, labels, 4, 255) == Record(7, (2, 0, 3, 0), 1)


def test_the_first_plan_wins() -> None:
    store = MemoryStore()
    plan = plan_of((600, 700), 256, (1, 1))
    other = replace(plan, grid=plan.grid.with_blocks((2, 2)))
    won = claim(store, plan.to_dict())
    assert claim(store, other.to_dict()) == stored_plan(store) == won
    assert Plan.from_dict(won) == plan
    assert plan != other


IMAGE = np.zeros((30, 40), np.uint8)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("content", ["notes.txt", "0/c/0/0", "zarr.json"])
def test_a_folder_of_somebody_else_is_refused_and_kept(
    tmp_path: Path, overwrite: bool, content: str
) -> None:
    theirs = tmp_path / "theirs" / content
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    with pytest.raises(OutputError, match="is no mask of tile-infer; choose another place"):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "theirs", overwrite=overwrite)
    assert theirs.read_text() == "precious"
    assert [path for path in (tmp_path / "theirs").rglob("*") if path.is_file()] == [theirs]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_the_mask_is_refused_and_kept(
    tmp_path: Path, overwrite: bool
) -> None:
    (tmp_path / "mask.zarr").write_text("precious")
    with pytest.raises(OutputError, match="exists and is a file"):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "mask.zarr", overwrite=overwrite)
    assert (tmp_path / "mask.zarr").read_text() == "precious"


def test_another_programs_zarr_is_refused_and_kept(tmp_path: Path) -> None:
    theirs = zarr.create_array(tmp_path / "t.zarr", shape=(3,), chunks=(3,), dtype="int8")
    theirs[:] = 7
    with pytest.raises(OutputError, match="is no mask of tile-infer"):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "t.zarr", overwrite=True)
    assert zarr.open_array(tmp_path / "t.zarr", mode="r")[:].tolist() == [7, 7, 7]  # type: ignore[union-attr]


def test_folders_above_the_mask_are_made(tmp_path: Path) -> None:
    found = predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "a/b/mask.zarr")
    assert (tmp_path / "a/b/mask.zarr/0/zarr.json").is_file()
    assert found.report["mask"] == str(tmp_path / "a/b/mask.zarr")


def test_a_place_below_a_file_is_refused_and_names_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file cannot be written to; .* with out"):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "file/mask.zarr")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_and_names_out(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"locked cannot be written to; .* with out"):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "locked/mask.zarr")
    assert not list((tmp_path / "locked").iterdir())


def test_a_folder_that_refuses_writing_is_refused_whoever_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match=r"cannot be written to; .* with out"):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "below/mask.zarr")


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingError):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), tmp_path / "mask.zarr", threshold=0.5)
    assert not list(tmp_path.iterdir())


def test_a_plan_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    predict_large(IMAGE, nn.Conv2d(1, 3, 3), out)
    (out / "tile_infer/zarr.json").write_text("{}")
    with pytest.raises(OutputError, match="holds a plan that cannot be read; use overwrite"):
        predict_large(IMAGE, nn.Conv2d(1, 3, 3), out)


@pytest.mark.parametrize("number", range(4))
def test_a_mask_that_was_deleted_in_part_is_still_known_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    out, module, calls = tmp_path / "mask.zarr", nn.Conv2d(1, 3, 3), list[Path]()
    before = np.asarray(predict_large(IMAGE, module, out))

    def failing(real: Any) -> Any:
        def stand_in(path: Path, **named: Any) -> None:
            if path.name in ("0", "records", "zarr.json"):
                calls.append(path)
                if len(calls) > number:
                    raise OSError(5, "Input/output error")
            real(path, **named)

        return stand_in

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", failing(shutil.rmtree))
        patched.setattr(Path, "unlink", failing(Path.unlink))
        with pytest.raises(OutputError, match=r"mask\.zarr: Input/output error$"):
            predict_large(IMAGE, module, out, overwrite=True)
    assert len(calls) == number + 1, "there is that much to delete"
    again = predict_large(IMAGE, module, out, overwrite=True)
    np.testing.assert_array_equal(np.asarray(again), before)
