"""An image of any size that is stored nowhere: a Zarr array whose chunks are made when read."""

import json
from collections.abc import AsyncIterator, Iterable
from functools import cache
from math import cos, sin
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

CHUNK_PX = 512
KINDS = 8


@cache
def _noise(side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 60, (KINDS, side, side, 3), np.uint8)


def tile(row: int, column: int, side: int) -> NDArray[np.uint8]:
    """Return one tile ``(y, x, 3)`` of noise over slow waves."""
    level = 90 + 60 * sin(row / 3) * cos(column / 5)
    made: NDArray[np.uint8] = _noise(side)[(row + 3 * column) % KINDS] + np.uint8(level)
    return made


class GeneratedStore(Store):
    """A read-only store of one uncompressed RGB array, which makes each chunk anew."""

    supports_writes = supports_deletes = supports_listing = False

    def __init__(self, side: int) -> None:
        super().__init__(read_only=True)
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [side, side, 3],
            "data_type": "uint8",
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [CHUNK_PX, CHUNK_PX, 3]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes"}],
            "dimension_names": ["y", "x", "c"],
        }
        self.metadata = json.dumps(metadata).encode()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GeneratedStore) and self.metadata == other.metadata

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the metadata, or a chunk's pixels."""
        assert prototype is not None
        assert byte_range is None, "chunks are no shards"
        if key == "zarr.json":
            return prototype.buffer.from_bytes(self.metadata)
        if not key.startswith("c/"):
            return None
        row, column, _ = map(int, key.removeprefix("c/").split("/"))
        return prototype.buffer.from_array_like(tile(row, column, CHUNK_PX).reshape(-1))

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        """Return several values."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Say whether there is such a key."""
        return key == "zarr.json" or key.startswith("c/")

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse."""
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        """Refuse."""
        raise NotImplementedError

    async def list(self) -> AsyncIterator[str]:
        """Name nothing but the array: there are too many chunks."""
        yield "zarr.json"

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Name nothing but the array."""
        yield "zarr.json"

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Name nothing but the array."""
        yield "zarr.json"


def generated(side: int) -> "zarr.Array[Any]":
    """Return a square RGB image of noise over slow waves, ``(y, x, 3)``."""
    return zarr.open_array(GeneratedStore(side), mode="r")
