"""How fast an image is segmented here, and what keeps it from being faster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter

from .backends.base import Backend, Precision
from .backends.device import device_text
from .backends.device_facts import device_memory, device_name
from .memory import forget_peak_rss, peak_rss_bytes
from .network_alone import network_alone
from .pipeline import Progress
from .plan import Plan
from .predict import predict
from .prediction import Prediction
from .settings import Settings
from .stages import Bound, bound_by, device_busy, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What a run gave; docs/speed.md says what each figure means."""

    device: str
    """``cpu``, ``cuda:N`` or, of a run that several shared, ``cuda:N,M``."""
    name: str
    """Model of the CPU, the GPU or the GPUs."""
    backend: Backend
    """Library that ran the network."""
    precision: Precision
    """Arithmetic of the network."""
    batch: int
    """Tiles per run of the network."""
    workers: int
    """Runs of the network at the same time on each device."""
    tile: tuple[int, int]
    """Height and width of a tile in pixels."""
    image: tuple[int, int]
    """Height and width of what was segmented, in pixels."""
    seconds: float
    """From the first block's begin to the last one's end."""
    planning_seconds: float
    """Time before that: opening, measuring the network, planning."""
    megapixels_per_second: float
    """Pixels of the mask."""
    tiles_per_second: float
    """Tiles of the grid, with those of one colour that were not run again."""
    network_megapixels_per_second: float
    """Pixels of the mask that the network alone would make."""
    network_tiles_per_second: float
    """Tiles that the network alone runs, of noise in memory; the sum over the devices."""
    engine_over_network: float
    """Time of the run over that of the network alone for the tiles that were run."""
    redundancy: float
    """Work of the tiles over that of one whole pass."""
    shares: dict[str, float]
    """Part of the work that each stage took; the sum is 1."""
    device_busy: float
    """Part of the time in which the places of all devices were taken."""
    bound_by: Bound
    """What the run would gain most from if it were faster."""
    peak_rss_bytes: int | None
    """Largest resident size of the process while it ran; ``None`` where the system does not say."""
    peak_device_bytes: int | None
    """Most memory of any of the GPUs in use after a block, by whomever; ``None`` on a CPU."""


def measure_throughput(
    image: Path,
    model: Path,
    settings: Settings,
    on_progress: Callable[[Progress], None] | None = None,
) -> Throughput:
    """Segment an image into a folder that is removed, run the network alone, and compare.

    Args:
        image: The image.
        model: The network's file.
        settings: How to do it; their ``device`` says where.
        on_progress: Called after every block.

    Raises:
        TileInferError: As ``predict_large``.
    """
    seen = _Seen(model, settings, on_progress)
    with TemporaryDirectory(prefix="tile-infer-bench-") as folder:
        out = Path(folder) / "mask.zarr"
        done = predict(
            image, model, out, settings, on_plan=seen.planned, on_progress=seen.progressed
        )
    seen.rates.append(network_alone(model, done.plan, settings))
    return compared(
        done,
        planning_seconds=seen.planning_seconds,
        seconds=seen.seconds,
        network_tiles_per_second=fmean(seen.rates),
        rss_bytes=max(seen.rss_bytes, done.report["peak_rss_bytes"]),
        device_bytes=seen.device_bytes,
    )


class _Seen:
    """What is seen of a run while it goes on."""

    def __init__(
        self, model: Path, settings: Settings, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self.model, self.settings, self.on_progress = model, settings, on_progress
        self.devices: Sequence[str] = ()
        self.planning_seconds = self.seconds = 0.0
        self.rates: list[float] = []
        self.rss_bytes = 0
        self.device_bytes: int | None = None
        forget_peak_rss()
        self.begun = perf_counter()

    def planned(self, plan: Plan) -> None:
        self.planning_seconds = perf_counter() - self.begun
        self.devices = plan.devices
        if plan.execution.device == "cpu":  # a GPU would have to hold the network twice
            # Before and after: what else a CPU does meanwhile changes by the minute.
            self.rss_bytes = peak_rss_bytes()
            self.rates.append(network_alone(self.model, plan, self.settings))
            forget_peak_rss()

    def progressed(self, progress: Progress) -> None:
        self.seconds = progress.seconds
        for memory in map(device_memory, self.devices):
            if memory is not None:
                self.device_bytes = max(memory.total - memory.free, self.device_bytes or 0)
        if self.on_progress:
            self.on_progress(progress)


def compared(
    done: Prediction,
    *,
    planning_seconds: float,
    seconds: float,
    network_tiles_per_second: float,
    rss_bytes: int,
    device_bytes: int | None,
) -> Throughput:
    """Return the figures of a run.

    Args:
        done: Its mask and report.
        planning_seconds: Until the plan was made.
        seconds: From the first block's begin to the last one's end.
        network_tiles_per_second: Of the network alone.
        rss_bytes: Largest resident size; 0 where the system does not say.
        device_bytes: Most memory of the GPU that was in use.
    """
    plan, report = done.plan, done.report
    ran, remembered = (report["counts"][f"tiles_{what}"] for what in ("run", "remembered"))
    megapixels = plan.shape[0] * plan.shape[1] / 1e6
    found, places = shares(report["stages"]), len(plan.devices) * plan.workers
    busy = device_busy(report["stages"], places, seconds)
    return Throughput(
        device=device_text(plan.devices),
        name=", ".join(dict.fromkeys(map(device_name, plan.devices))),
        backend=plan.execution.backend,
        precision=plan.execution.precision,
        batch=plan.batch,
        workers=plan.workers,
        tile=plan.grid.tile,
        image=plan.grid.image_shape,
        seconds=seconds,
        planning_seconds=planning_seconds,
        megapixels_per_second=megapixels / seconds,
        tiles_per_second=(ran + remembered) / seconds,
        network_megapixels_per_second=megapixels * network_tiles_per_second / (ran + remembered),
        network_tiles_per_second=network_tiles_per_second,
        engine_over_network=seconds * network_tiles_per_second / ran,
        redundancy=plan.redundancy,
        shares=found,
        device_busy=busy,
        bound_by=bound_by(found, busy),
        peak_rss_bytes=rss_bytes or None,
        peak_device_bytes=device_bytes,
    )
