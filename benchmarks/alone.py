"""What the network, decoding and writing take alone: plain calls of their libraries.

Nothing of this package is imported: what it is compared with may not share its mistakes.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import openvino
import tifffile
import torch
import zarr
from numpy.typing import NDArray
from onnx import TensorProto, helper

Library = Literal["onnx", "openvino", "torch"]
Run = Callable[[], object]


@dataclass(frozen=True)
class Setup:
    """One way to run a network."""

    library: Library
    tile: int
    """Side of its input in pixels."""
    batch: int
    at_once: int
    """Runs side by side."""
    threads: int
    """Threads of each run."""


def setups(
    libraries: Iterable[Library], tiles: Iterable[int], batches: Iterable[int], cores: int
) -> list[Setup]:
    """Return all ways to run a network on so many cores: split, or all for each run."""
    ways = dict.fromkeys([(cores, 1), (1, cores)])
    return [Setup(*each[:3], *each[3]) for each in product(libraries, tiles, batches, ways)]


def opened(folder: Path, setup: Setup, tiles: NDArray[Any] | None = None) -> list[Run]:
    """Return a call for each of the runs side by side, on noise unless tiles are given.

    Args:
        folder: Holds the network as ``network.onnx`` and, for Torch, as ``network.pt``.
        setup: How to run it.
        tiles: What each run is given.
    """
    if tiles is None:
        shape = (setup.batch, 3, setup.tile, setup.tile)
        tiles = np.random.default_rng(0).random(shape, np.float32)
    path = str(folder / "network.onnx")
    if setup.library == "onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = setup.threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        fed = {session.get_inputs()[0].name: tiles}
        return [lambda: session.run(None, fed)] * setup.at_once
    if setup.library == "openvino":
        core = openvino.Core()
        openvino.Tensor(tiles, shared_memory=True)  # the first two, made at once, hang
        model = core.read_model(path)
        model.reshape(list(tiles.shape))
        hints = {
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": setup.at_once,
            "INFERENCE_NUM_THREADS": setup.at_once * setup.threads,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", hints)
        requests = [compiled.create_infer_request() for _ in range(setup.at_once)]
        return [
            partial(request.infer, [tiles], share_inputs=True, share_outputs=True)
            for request in requests
        ]
    module = torch.jit.load(str(folder / "network.pt")).eval()  # type: ignore[no-untyped-call]
    module = torch.jit.optimize_for_inference(torch.jit.freeze(module))
    images = torch.from_numpy(tiles).contiguous(memory_format=torch.channels_last)

    def run() -> object:
        torch.set_num_threads(setup.threads)
        with torch.inference_mode():
            return module(images)

    return [run] * setup.at_once


def seconds_per_tile(setup: Setup, runs: Sequence[Run], at_least: float) -> float:
    """Return the time for a tile, from as many rounds of all runs as ``at_least`` seconds hold."""
    with ThreadPoolExecutor(setup.at_once) as pool:

        def all_at_once() -> None:
            list(pool.map(lambda run: run() is None, runs))

        all_at_once()
        rounds, begun = 0, perf_counter()
        while perf_counter() - begun < at_least:
            all_at_once()
            rounds += 1
        spent = perf_counter() - begun
    return spent / (rounds * setup.at_once * setup.batch)


def sweep(
    folder: Path, candidates: Iterable[Setup], kept_px: Callable[[int], int], at_least: float
) -> list[dict[str, Any]]:
    """Return each setup's rate in megapixels of mask per second, the fastest first.

    Args:
        folder: Holds the network.
        candidates: The setups.
        kept_px: Side of what an exact run keeps of a tile.
        at_least: Seconds for each.
    """
    rows = []
    for setup in candidates:
        rate = kept_px(setup.tile) ** 2 / seconds_per_tile(setup, opened(folder, setup), at_least)
        rows.append({**asdict(setup), "mpx_per_second": round(rate / 1e6, 4)})
    return sorted(rows, key=lambda row: -row["mpx_per_second"])


def write_labelling(model: Path, out: Path) -> None:
    """Write a network of one channel between raw pixels and labels, as briefly as can be."""
    graph = onnx.load(model)
    (image,), (logits,) = (
        [each.name for each in graph.graph.input],
        [each.name for each in graph.graph.output],
    )
    before = [
        helper.make_node("Transpose", ["pixels"], ["planar"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planar"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "unit"], [image]),
    ]
    after = [
        helper.make_node("Greater", [logits, "zero"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["labels"], to=TensorProto.UINT8),
    ]
    nodes = [*before, *graph.graph.node, *after]
    constants = [("unit", 1 / 255), ("zero", 0.0)]
    whole = helper.make_graph(
        nodes,
        "labelling",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "y", "x", 1])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, None)],
        [
            *graph.graph.initializer,
            *[helper.make_tensor(name, TensorProto.FLOAT, [], [x]) for name, x in constants],
        ],
    )
    made = helper.make_model(whole, opset_imports=graph.opset_import, ir_version=graph.ir_version)
    onnx.save(made, out)


def decoded(path: Path, threads: int) -> float:
    """Return the seconds that decoding every tile of a TIFF takes, on so many threads."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        decode = page.decode
        pieces = [places[first::threads] for first in range(threads)]

        def work(piece: list[tuple[int, int]]) -> None:
            with path.open("rb", buffering=0) as raw:
                for number, (offset, size) in enumerate(piece):
                    raw.seek(offset)
                    decode(raw.read(size), number, jpegheader=page.jpegheader)

        return _seconds(work, pieces)


def written(mask: Path, out: Path, threads: int) -> float:
    """Return the seconds that writing a mask again takes, all its levels, on so many threads.

    What is written lies in memory: the upper left chunks of each level, again and again.
    """
    group = zarr.open_group(mask, mode="r")
    total = 0.0
    for name in sorted(key for key, _ in group.arrays() if key.isdigit()):
        array = group[name]
        assert isinstance(array, zarr.Array)
        made = zarr.create_array(
            out,
            name=name,
            shape=array.shape,
            chunks=array.chunks,
            dtype=array.dtype,
            compressors=array.compressors,
            fill_value=array.fill_value,
            config={"write_empty_chunks": True},
        )
        high, wide = (4 * side for side in array.chunks)
        sample: NDArray[Any] = np.asarray(array[:high, :wide])
        places = list(product(range(0, array.shape[0], high), range(0, array.shape[1], wide)))

        def work(part: list[tuple[int, int]], made: Any = made, sample: Any = sample) -> None:
            for y, x in part:
                height = min(sample.shape[0], made.shape[0] - y)
                width = min(sample.shape[1], made.shape[1] - x)
                made[y : y + height, x : x + width] = sample[:height, :width]

        total += _seconds(work, [places[first::threads] for first in range(threads)])
    return total


def _seconds(work: Callable[[Any], None], pieces: list[Any]) -> float:
    with ThreadPoolExecutor(len(pieces)) as pool:
        begun = perf_counter()
        list(pool.map(work, pieces))
        return perf_counter() - begun
