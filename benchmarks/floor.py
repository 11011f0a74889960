"""How near the engine comes to what decoding and writing leave, with a network that costs nothing.

A threshold on the red channel segments an RGB slide of JPEG tiles, from the file to the mask on
disk.
The floor is the time of decoding alone, of that network alone and of writing alone, one after the
other, each on all cores and in the best way its library has (`alone.py`). The slide repeats the
tiles of a synthetic one, so that it need not be made for hours; nothing of it is constant, and no
tile is remembered. The engine's time is that of the whole call: it measures the network as well.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from alone import Library, decoded, opened, seconds_per_tile, setups, write_labelling, written
from results_file import save
from slide_file import described
from tile_infer import predict_large
from tile_infer.engine.backends.device import cpu_cores
from tile_infer.engine.networks.repeated_slide import write_repeated_slide

AIM_OF_FLOOR, AIM_MPX_PER_SECOND = 0.85, 200
TILES_PX = (256, 512, 1024)
LIBRARIES: tuple[Library, ...] = ("onnx", "openvino")


def write_threshold(path: Path) -> None:
    """Write the network: its one channel, less a half."""
    image, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
        for name in ("image", "logits")
    )
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    nodes = [helper.make_node("Sub", ["image", "half"], ["logits"])]
    graph = helper.make_graph(nodes, "threshold", [image], [logits], [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


def fastest_network(folder: Path, cores: int) -> dict[str, Any]:
    """Return the best way to run the network from pixels to labels, and its rate."""
    rows = []
    for setup in setups(LIBRARIES, TILES_PX, [1], cores):
        shape = (1, setup.tile, setup.tile, 1)
        tiles = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        taken = seconds_per_tile(setup, opened(folder, setup, tiles), at_least=1)
        rows.append({**asdict(setup), "mpx_per_second": round(setup.tile**2 / taken / 1e6, 1)})
    return max(rows, key=lambda row: row["mpx_per_second"])


def main() -> None:
    """Measure, print each round and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=40 * 1024, help="side of the slide in px")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cores, rows = cpu_cores(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, model = folder / "slide.tif", folder / "threshold.onnx"
        write_repeated_slide(slide, (options.side, options.side), seed=11)
        write_threshold(model)
        write_labelling(model, folder / "network.onnx")
        megapixels = options.side**2 / 1e6
        for turn in range(options.rounds + 1):
            mask = folder / f"{turn}.zarr"  # files that replace deleted ones take longer
            begun = perf_counter()
            prediction = predict_large(slide, model, mask, device="cpu", channels=(0,), verify=0)
            wall = perf_counter() - begun
            counts = prediction.report["counts"]
            assert not counts["tiles_remembered"], "a textured slide has no tile of one colour"
            if turn == 0:  # imports, caches, and the system's of the file
                continue
            network = fastest_network(folder, cores)
            rates = {
                "decode": megapixels / decoded(slide, cores),
                "network": network["mpx_per_second"],
                "write": megapixels / written(mask, folder / f"{turn}.again.zarr", cores),
            }
            floor = 1 / sum(1 / rate for rate in rates.values())
            row = {
                "engine_mpx_per_second": megapixels / wall,
                "floor_mpx_per_second": floor,
                "engine_over_floor": megapixels / wall / floor,
                **{f"{stage}_alone_mpx_per_second": rate for stage, rate in rates.items()},
            }
            rows.append({key: round(value, 3) for key, value in row.items()})
            print(rows[-1], flush=True)
        figures = {
            "aims": {"of_floor": AIM_OF_FLOOR, "mpx_per_second": AIM_MPX_PER_SECOND},
            "image": described(slide),
            "backend": prediction.plan.execution.backend,
            "tile": prediction.plan.grid.tile,
            "network_alone": network,
            "stages": prediction.report["stages"],
            "counts": counts,
            "rows": rows,
            **{f"median_{key}": median(row[key] for row in rows) for key in rows[0]},
        }
    figures["reaches"] = {
        "of_floor": figures["median_engine_over_floor"] >= AIM_OF_FLOOR,
        "mpx_per_second": figures["median_engine_mpx_per_second"] >= AIM_MPX_PER_SECOND,
    }
    print(save("floor", figures), figures["reaches"])


if __name__ == "__main__":
    main()
