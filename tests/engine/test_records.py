"""Records in memory and in the mask."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tile_infer.engine.stitcher import records as records_module
from tile_infer.engine.stitcher.records import (
    Record,
    Records,
    create_records,
    read_records,
    write_record,
)
from tile_infer.engine.stitcher.store import present_chunks

BLOCKS, CLASSES = 12, 3
COUNTS = st.integers(0, 2**40)
RECORDS = st.builds(
    Record,
    st.integers(0, BLOCKS - 1),
    st.tuples(*[COUNTS] * CLASSES),
    st.one_of(st.just(0), COUNTS),
    COUNTS,
)


@given(st.lists(RECORDS, max_size=30))
def test_records_are_a_mapping_by_block(made: list[Record]) -> None:
    table, plain = Records(BLOCKS, CLASSES), dict[int, Record]()
    for record in made:
        table.add(record)
        plain[record.block] = record
    assert table == plain
    assert list(table) == sorted(plain)
    assert len(table) == len(plain)
    total = table.total()
    assert list(total.pixels) == [
        sum(record.pixels[label] for record in plain.values()) for label in range(CLASSES)
    ]
    assert total.filled == sum(record.filled for record in plain.values())
    broken = {block: each.not_computed for block, each in plain.items() if each.not_computed}
    assert table.not_computed() == broken
    assert total.not_computed == sum(broken.values())


def test_a_record_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Records(BLOCKS, CLASSES)[3]


def test_records_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "_AT_ONCE", 2)
    group = zarr.open_group(tmp_path / "m.zarr", mode="w")
    array = create_records(group, BLOCKS, CLASSES)
    made = [Record(block, (block, 0, 5), block % 2, 7) for block in (0, 3, 4, 9, 11)]
    for record in made:
        write_record(array, record)
    there = present_chunks(group.store, array)[:, 0]
    assert np.flatnonzero(there).tolist() == [0, 3, 4, 9, 11]
    assert list(read_records(array, np.flatnonzero(there))) == made
    assert list(read_records(array, np.arange(BLOCKS))) == made
    assert list(read_records(array, np.array([1, 4]))) == made[2:3]


@pytest.mark.parametrize(
    "name", ["c/12/0", "c/0", "c/0/0/0", "c/0/1", "c/x/0", "c/-1/0", "c/²/0", "c/0/0.partial"]
)
def test_what_is_no_chunk_counts_for_none(tmp_path: Path, name: str) -> None:
    group = zarr.open_group(tmp_path / "m.zarr", mode="w")
    array = create_records(group, BLOCKS, CLASSES)
    path = tmp_path / "m.zarr" / "records" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something")
    assert not present_chunks(group.store, array).any()
    write_record(array, Record(5, (1, 2, 3), 0))
    assert np.argwhere(present_chunks(group.store, array)).tolist() == [[5, 0]]
