"""Layouts of the paper's U-Net, of which nothing is run: its layers are those derived by hand."""

from collections.abc import Sequence

from tile_infer.engine.backends.base import Execution, NetworkFacts, Precision, Recipe
from tile_infer.engine.backends.device import device_kind
from tile_infer.engine.layout import Layout, plan_layouts
from tile_infer.engine.settings import Settings
from tile_infer.engine.tiling import CORES_PX, Tiling
from tile_infer.engine.work import measure_work
from tile_infer.tiler.axis import exact_grid
from tile_infer.tiler.geometry import AxisGeometry, Geometry
from tile_infer.tiler.grid import Grid

from .test_backends import recipe
from .test_work import FAKE

AXIS = AxisGeometry(204, 16, 16, 92, 92)
GEOMETRY = Geometry(AXIS, AXIS)
WORK = measure_work(FAKE, 1, GEOMETRY)
FACTS = NetworkFacts("unet", "abc", "onnx", 1, (None, None), None, "0", "none")
GIB = 1 << 30


def recipe_of(tiling: Tiling) -> Recipe:
    return recipe(tile=tiling.grid.tile, window=tiling.grid.window, scores=None)


def layouts(
    side: int,
    device: str = "cpu",
    *,
    memory: int = 64 * GIB,
    device_memory: int = 16 * GIB,
    precision: Precision = "fp32",
    cores: Sequence[int] | None = None,
    workers: int | None = 2,
    devices: int = 1,
) -> list[Layout]:
    """Plan a square image in a given memory."""
    tilings = {}
    for core in cores or CORES_PX[device_kind(device)]:
        axis = exact_grid(side, AXIS, core_limit=core)
        tilings[axis.tile] = Tiling(Grid(axis, axis), GEOMETRY, True, None, (), ())
    return plan_layouts(
        list(tilings.values()),
        recipe_of,
        1,
        WORK,
        FACTS,
        Execution(device, precision),
        [device] * devices,
        Settings(memory=memory, device_memory=device_memory, workers=workers),
    )
