"""What a mask's chunks cost to write and read, and how small they are, by codec.

Three masks: the nuclei of the synthetic slide, its pixels above a threshold (as rough as masks get)
and nine classes of smooth regions; and probabilities in float16. Each is written in chunks of 1024
px into memory and read back, and the time is that of all threads of the process on their cores,
which other processes change little. The fastest of the runs counts, as the codecs take turns.
"""

import argparse
from collections.abc import Callable
from time import process_time
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import MemoryStore

from results_file import save
from tile_infer.engine.networks.tissue import tissue

CHUNK_PX = 1024


def blosc(name: str, level: int, shuffle: str) -> Callable[[int], BytesBytesCodec]:
    """Return what makes a Blosc codec for items of so many bytes."""
    return lambda item: BloscCodec(typesize=item, cname=name, clevel=level, shuffle=shuffle)  # type: ignore[arg-type]


CODECS: dict[str, Callable[[int], BytesBytesCodec | None]] = {
    "none": lambda _: None,
    "zstd 1": lambda _: ZstdCodec(level=1),
    "zstd -5": lambda _: ZstdCodec(level=-5),
    "gzip 1": lambda _: GzipCodec(level=1),
    "blosc lz4 5": blosc("lz4", 5, "noshuffle"),
    "blosc lz4 5, shuffled bits": blosc("lz4", 5, "bitshuffle"),
    "blosc lz4 5, shuffled bytes": blosc("lz4", 5, "shuffle"),
    "blosc zstd 1, shuffled bits": blosc("zstd", 1, "bitshuffle"),
    "blosc zstd 1, shuffled bytes": blosc("zstd", 1, "shuffle"),
    "blosc zstd 5, shuffled bits": blosc("zstd", 5, "bitshuffle"),
}


def smooth(random: np.random.Generator, count: int, side: int) -> NDArray[Any]:
    """Return maps ``(count, side, side)`` between which 32 px make a difference."""
    coarse = random.standard_normal((count, side // 32 + 2, side // 32 + 2)).astype(np.float32)
    at = np.arange(side, dtype=np.float32) / 32
    low, part = at.astype(int), at % 1
    rows = coarse[:, low] * (1 - part[:, None]) + coarse[:, low + 1] * part[:, None]
    return rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part


def contents(side: int) -> dict[str, NDArray[Any]]:
    """Return what is written, by name."""
    slide, random = tissue((side, side), seed=3), np.random.default_rng(0)
    return {
        "nuclei": slide.labels,
        "threshold": (slide.image[..., 0] > 127).astype(np.uint8),
        "nine classes": smooth(random, 9, side).argmax(0).astype(np.uint8),
        "probabilities": (1 / (1 + np.exp(-2 * smooth(random, 1, side)[0]))).astype(np.float16),
    }


def cost(pixels: NDArray[Any], codec: BytesBytesCodec | None) -> tuple[float, float, float]:
    """Return nanoseconds per pixel to write and to read on one core, and bits per pixel."""
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=pixels.shape,
        chunks=(CHUNK_PX, CHUNK_PX),
        dtype=pixels.dtype,
        compressors=codec,
        config={"write_empty_chunks": True},
    )
    begun = process_time()
    array[:] = pixels
    written = process_time()
    found = array[:]
    read = process_time()
    assert np.array_equal(np.asarray(found), pixels)
    size = sum(len(each) for key, each in store._store_dict.items() if "/" in key)
    per_px = 1e9 / pixels.size
    return (written - begun) * per_px, (read - written) * per_px, 8 * size / pixels.size


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096, help="side of a mask in px")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = []
    for name, pixels in contents(options.side).items():
        found: dict[str, list[tuple[float, float, float]]] = {codec: [] for codec in CODECS}
        for _ in range(options.rounds):
            for codec, make in CODECS.items():
                found[codec].append(cost(pixels, make(pixels.itemsize)))
        for codec, runs in found.items():
            write, read, bits = (min(each) for each in zip(*runs, strict=True))
            row = {
                "content": name,
                "codec": codec,
                "write_ns_per_px": round(write, 3),
                "read_ns_per_px": round(read, 3),
                "bits_per_px": round(bits, 4),
            }
            rows.append(row)
            print(*row.values())
    print(save("mask_codecs", {"side_px": options.side, "chunk_px": CHUNK_PX, "rows": rows}))


if __name__ == "__main__":
    main()
