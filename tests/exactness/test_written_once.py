"""Each chunk is opened for writing once, and none is left out."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, MemoryStore, WrapperStore

from tile_infer.engine.predict import predict
from tile_infer.engine.settings import Settings

from .seeded_networks import export, seeded, textured

SLIDE = textured(30, 8192)[:, :, 0]
"""Seven chunks wide, with three lower levels."""


class CountingStore(WrapperStore[Any]):
    """Counts what is written and deleted, by key."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.writes: Counter[str] = Counter()
        self.deletions: list[str] = []
        self.reads_before_writing: list[str] = []

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if "/c/" in key and key not in self.writes:
            self.reads_before_writing.append(key)
        return await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        self.writes[key] += 1
        await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        self.writes[key] += 1
        await super().set_if_not_exists(key, value)

    async def delete(self, key: str) -> None:
        self.deletions.append(key)
        await super().delete(key)


def chunk_names(array: zarr.Array[Any]) -> set[str]:
    grid = [range(-(-side // size)) for side, size in zip(array.shape, array.chunks, strict=True)]
    names = {""}
    for axis in grid:
        names = {f"{name}/{index}" for name in names for index in axis}
    return {f"{array.path}/c{name}" for name in names}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output": "logits"},
        {"output": "probabilities"},
        {"blend": "hann", "tile": (92, 124)},
        {"blend": "gaussian", "tile": (92, 124), "output": "probabilities"},
        {"blend": "none", "overlap": 0.5, "tile": (124, 124)},
    ],
    ids=str,
)
@pytest.mark.parametrize(("kind", "form"), [("memory", "torch"), ("local", "onnx")])
def test_every_chunk_is_written_once(
    tmp_path: Path, options: dict[str, Any], kind: str, form: str
) -> None:
    module = seeded(2, 0, classes=3)
    model: Any = export(module, tmp_path / "n.onnx", 1) if form == "onnx" else module
    inner = MemoryStore() if kind == "memory" else LocalStore(tmp_path / "out.zarr")
    store = CountingStore(inner)
    found = predict(SLIDE, model, store, Settings(workers=2, **options))
    assert found.plan.grid.blocks > 4
    assert found.plan.grid.blended == (options.get("blend") in ("hann", "gaussian"))
    written = {key: count for key, count in store.writes.items() if "/c/" in key}
    wanted: set[str] = set()
    for _, array in found.group.members(max_depth=None):
        if isinstance(array, zarr.Array):
            wanted |= chunk_names(array)
    assert set(written) == wanted
    assert set(written.values()) == {1}
    assert store.deletions == []
    # Records are listed at the start; a chunk of pixels is not read to be changed.
    assert [key for key in store.reads_before_writing if "records" not in key] == []
    assert len(list(found.group.arrays())) == (5 if "output" in options else 4)
    labels = np.asarray(found)
    assert (np.bincount(labels.ravel(), minlength=256)[[0, 1, 2]] > 0).all()
    assert labels.max() == 2, "a pixel that no tile wrote would be 255"


def test_a_chunk_of_zeros_is_written_too() -> None:
    store = CountingStore(MemoryStore())
    module = seeded(2, 0, classes=1)
    assert module.head.bias is not None
    module.head.bias.data -= 1000
    found = predict(SLIDE, module, store, Settings(workers=2))
    assert not np.asarray(found).any()
    assert chunk_names(found.mask) <= set(store.writes)


def test_the_count_notices_a_chunk_that_two_blocks_share() -> None:
    store = CountingStore(MemoryStore())
    array = zarr.create_array(store, shape=(4, 8), chunks=(4, 4), dtype="uint8", name="0")
    array[:, :6] = 1
    array[:, 6:] = 2
    assert store.writes["0/c/0/1"] == 2
    assert "0/c/0/1" in store.reads_before_writing
