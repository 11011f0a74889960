"""`tile-infer bench`: how fast the devices of this machine are, and what bounds them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from ..engine.backends.device import cuda_devices, device_text, resolve_devices
from ..engine.bench_inputs import write_paper_unet, write_sized_slide
from ..engine.memory import human
from ..engine.settings import Settings
from ..engine.throughput import Throughput, measure_throughput
from ..tiler.errors import DeviceError, MissingExtraError
from .options import Options
from .progress import ProgressReport
from .segment import NO_OPTIONS
from .summary import columns
from .terminal import Terminal


def bench(
    *,
    model: Path | None = None,
    image: Path | None = None,
    json: bool = False,
    options: Options = NO_OPTIONS,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Measure how fast images are segmented here, on CPU, each GPU and all, and what bounds it.

    It takes a minute or two for each and leaves nothing behind.

    Args:
        model: The network [default: the paper's U-Net with random weights, which needs Torch].
        image: The image [default: a slide made for it, which takes the device half a minute].
        json: Print JSON.
        options: How to do it; without --device, on the CPU, on each GPU and on all of them.
        terminal: Where to print.
    """
    settings = options.settings()
    found = []
    devices = _devices(settings)
    with TemporaryDirectory(prefix="tile-infer-bench-") as name:
        folder = Path(name)
        if model is None:
            model = folder / "unet.onnx"
            terminal.note("making the paper's U-Net")
            write_paper_unet(model)
        for device in devices:
            try:
                found.append(
                    _bench(device, image, model, replace(settings, device=device), folder, terminal)
                )
            except (DeviceError, MissingExtraError) as error:
                if len(devices) == 1:
                    raise
                terminal.warning(f"{device} is left out: {error}")
    if not found:
        raise DeviceError("no device could be measured; see the warnings above")
    if json:
        terminal.json({"model": model.name, "devices": [asdict(each) for each in found]})
        return 0
    for table in (_speeds(found), _shares(found)):
        terminal.print(table)
        terminal.print()
    for each in found:
        for line in columns(_facts(each)):
            terminal.print(line)
    return 0


def _devices(settings: Settings) -> list[str]:
    """Return what is measured: the devices asked for, all at once; else each, and all GPUs.

    The CPU is first, before a GPU's libraries take memory.
    """
    if settings.device not in (None, "auto"):
        return [device_text(resolve_devices(settings.device))]
    gpus = [f"cuda:{number}" for number in range(cuda_devices())]
    return ["cpu", *gpus, *([device_text(gpus)] if len(gpus) > 1 else [])]


def _bench(
    device: str,
    image: Path | None,
    model: Path,
    settings: Settings,
    folder: Path,
    terminal: Terminal,
) -> Throughput:
    if image is None:
        image = folder / "slide.tif"
        terminal.note(f"{device}: measuring the network, to make a slide of a fitting size")
        settings = write_sized_slide(image, model, settings)
    with ProgressReport(terminal, f"{device}: {image.name}") as progress:
        return measure_throughput(image, model, settings, progress)


def _speeds(found: Sequence[Throughput]) -> Table:
    return _table(
        ["MPix/s", "tiles/s", "network", "engine", "work", "memory", "GPU", "bound by"],
        {
            each.device: [
                f"{each.megapixels_per_second:.3g}",
                f"{each.tiles_per_second:.3g}",
                f"{each.network_megapixels_per_second:.3g}",
                f"{each.engine_over_network:.2f} x",
                f"{each.redundancy:.2f} x",
                _size(each.peak_rss_bytes),
                _size(each.peak_device_bytes),
                each.bound_by,
            ]
            for each in found
        },
    )


def _shares(found: Sequence[Throughput]) -> Table:
    return _table(
        [*found[0].shares, "device busy"],
        {
            each.device: [
                f"{100 * share:.1f} %" for share in (*each.shares.values(), each.device_busy)
            ]
            for each in found
        },
    )


def _table(heads: Sequence[str], rows: dict[str, list[str]]) -> Table:
    table = Table("device", box=None, header_style="bold", pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _facts(each: Throughput) -> list[tuple[str, str]]:
    runs = f"{each.workers} x {each.batch} tiles of {each.tile[0]} x {each.tile[1]} px at a time"
    if "," in each.device:
        runs += " on each"
    return [
        (each.device, each.name),
        ("network", f"{each.backend}, {each.precision}, {runs}"),
        (
            "image",
            f"{each.image[0]} x {each.image[1]} px in {each.seconds:.1f} s, after "
            f"{each.planning_seconds:.1f} s of planning",
        ),
    ]


def _size(size: int | None) -> str:
    return "-" if size is None else human(size)
