"""Work planned over the work of one whole pass, against the image's size: this package and others.

No pixel is computed. The paper's U-Net is measured once, the tiles of each image are planned as for
a run, and multiply-adds are counted layer by layer. The others' tiles are counted by the formula of
each. A whole pass is one over the image, which is extended for valid convolutions alone.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from results_file import save
from tile_infer.engine.backends.base import Execution, NetworkFacts, Recipe
from tile_infer.engine.backends.device import device_kind
from tile_infer.engine.backends.torch import TorchNetwork
from tile_infer.engine.inspection import inspect
from tile_infer.engine.layout import plan_layouts, usual_layout
from tile_infer.engine.networks.unet import UNet
from tile_infer.engine.normalize import Normalization
from tile_infer.engine.probe import Probe
from tile_infer.engine.recipe import build_recipe
from tile_infer.engine.settings import Settings
from tile_infer.engine.tiling import Tiling, choose_tilings
from tile_infer.engine.work import Work, measure_work

SIDES_PX = (
    [512 << octave for octave in range(8)]
    + [724 << octave for octave in range(8)]
    + [2_000, 20_000, 100_000]
)
PAPER_PX, PAPER_CORE_PX, SAME_PX = 572, 388, 512
CHANNELS = 3
HOST_BYTES, DEVICE_BYTES = 16 << 30, 40 << 30
"""Memory to plan in: of a usual computer, and of a GPU that trains networks."""


Padding = Literal["valid", "same"]
Plan = Callable[[int], tuple[int, int]]
"""From the side of an image to the side of a tile and the number of tiles."""


@dataclass(frozen=True)
class Schedule:
    """Who lays which tiles for which network."""

    name: str
    padding: Padding
    plan: Plan
    passes: int = 1


def covering(tile: int, stride: int) -> Plan:
    """Return the plan of those who move the last tile back into the image."""
    return lambda side: (tile, (-(-max(0, side - tile) // stride) + 1) ** 2)


def stepping(tile: int, stride: int) -> Plan:
    """Return the plan of those who let the last tile reach beyond the image."""
    return lambda side: (tile, (-(-side // stride)) ** 2)


@dataclass(frozen=True)
class Measured:
    """The paper's U-Net, as it is planned by."""

    facts: NetworkFacts
    probe: Probe
    work: Work


def ours(network: Measured, device: str, *, tile: int | None = None) -> Plan:
    """Return this package's own plan in a given memory, where nothing is measured."""
    settings = Settings(
        tile=None if tile is None else (tile, tile), memory=HOST_BYTES, device_memory=DEVICE_BYTES
    )
    kind = device_kind(device)

    def recipe_of(tiling: Tiling) -> Recipe:
        return build_recipe(
            "uint8",
            CHANNELS,
            tiling.grid,
            tiling.geometry,
            network.probe,
            network.facts,
            Normalization("none", (0.0,) * CHANNELS, (1.0,) * CHANNELS, ""),
            settings,
        )

    def plan(side: int) -> tuple[int, int]:
        tilings = choose_tilings((side, side), network.probe, settings, kind)
        execution = Execution(device, backend="torch")
        layouts = plan_layouts(
            tilings, recipe_of, 1, network.work, network.facts, execution, [device], settings
        )
        grid = usual_layout(layouts).tiling.grid
        return grid.tile[0], grid.tiles

    return plan


def schedules(networks: dict[Padding, Measured]) -> list[Schedule]:
    """Return all of them."""
    valid, same = networks["valid"], networks["same"]
    return [
        Schedule("tile-infer, 572 px", "valid", ours(valid, "cpu", tile=PAPER_PX)),
        Schedule("tile-infer, free size, CPU", "valid", ours(valid, "cpu")),
        Schedule("tile-infer, free size, GPU", "valid", ours(valid, "cuda:0")),
        Schedule("loop of 388 px", "valid", stepping(PAPER_PX, PAPER_CORE_PX)),
        Schedule("tile-infer, 512 px", "same", ours(same, "cpu", tile=SAME_PX)),
        Schedule("tile-infer, free size, CPU", "same", ours(same, "cpu")),
        Schedule("tile-infer, free size, GPU", "same", ours(same, "cuda:0")),
        Schedule("loop of 512 px", "same", stepping(SAME_PX, SAME_PX)),
        Schedule("MONAI, overlap 0.25", "same", covering(SAME_PX, SAME_PX * 3 // 4)),
        Schedule("MONAI, overlap 0.5", "same", covering(SAME_PX, SAME_PX // 2)),
        Schedule("nnU-Net, step 0.5", "same", covering(SAME_PX, SAME_PX // 2)),
        Schedule("nnU-Net, step 0.5, mirrored", "same", covering(SAME_PX, SAME_PX // 2), passes=4),
    ]


def measured(padding: Padding, width: int) -> Measured:
    """Measure the paper's U-Net, and count the work of its layers."""
    network = TorchNetwork(UNet(in_channels=CHANNELS, classes=2, width=width, padding=padding))
    probe = inspect(network, Settings(), channels=CHANNELS)
    return Measured(network.facts, probe, measure_work(network, CHANNELS, probe.geometry))


def curves(rows: list[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Return sides and redundancies of each schedule, for a plot."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        sides, values = found.setdefault(f"{row['schedule']} ({row['padding']})", ([], []))
        sides.append(row["side_px"])
        values.append(row["redundancy"])
    return found


def main() -> None:
    """Plan each size, print it and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=sorted(SIDES_PX))
    parser.add_argument("--width", type=int, default=64, help="channels of the first level")
    options = parser.parse_args()
    paddings: tuple[Padding, ...] = ("valid", "same")
    networks = {padding: measured(padding, options.width) for padding in paddings}
    rows = []
    for schedule in schedules(networks):
        work = networks[schedule.padding].work
        lost = networks[schedule.padding].probe.geometry.y.lost
        for side in options.sides:
            tile, tiles = schedule.plan(side)
            once = work.multiply_adds((side + lost, side + lost))
            done = schedule.passes * tiles * work.multiply_adds((tile, tile))
            rows.append(
                {
                    "schedule": schedule.name,
                    "padding": schedule.padding,
                    "side_px": side,
                    "tile_px": tile,
                    "tiles": tiles,
                    "passes": schedule.passes,
                    "redundancy": round(float(done / once), 4),
                }
            )
    for name, (sides, values) in curves(rows).items():
        print(f"{name}: {values[0]:.2f} at {sides[0]} px, {values[-1]:.3f} at {sides[-1]} px")
    figures = {"width": options.width, "memory": HOST_BYTES, "device_memory": DEVICE_BYTES}
    print(save("redundancy", {**figures, "rows": rows}))


if __name__ == "__main__":
    main()
