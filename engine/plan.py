"""Everything that was decided before the first tile is run, as one value."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec
import numpy as np

from ..tiler.errors import OutputError
from ..tiler.grid import Grid
from ..tiler.turn import Turn
from .backends.base import Execution, NetworkFacts, Recipe
from .backends.device import device_kind, device_list, device_text
from .downsampling import downsampling
from .footprint import disk_bytes
from .probe import Probe
from .settings import Settings
from .sources import ImageFacts
from .strips import Strips

PLAN_VERSION = 4
"""Grows when a stored plan of an older release can no longer be continued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How an image will be segmented. Stored with the mask; survives JSON.

    Resuming, other processes and other machines read this value instead of deciding again.
    """

    version: int = PLAN_VERSION
    """Version of this format."""
    image: ImageFacts
    """The image."""
    level: int
    """Resolution that is worked on."""
    channels: tuple[int, ...]
    """Channels of the image that the network is given."""
    network: NetworkFacts
    """The network."""
    probe: Probe
    """What was measured of it."""
    exact: bool
    """Whether the mask is that of one whole pass."""
    grid: Grid
    """Tiles, blocks and chunks."""
    blend: str | None
    """Window of overlapping tiles; ``None`` where each pixel comes from one tile."""
    turns: tuple[Turn, ...]
    """How each tile is turned for a run of its own; the mean of their probabilities counts."""
    normalize: str
    """How pixels are normalised."""
    recipe: Recipe
    """What runs on the device."""
    execution: Execution
    """Where it runs: the first of the devices, which are alike."""
    batch: int
    """Tiles per run."""
    class_names: tuple[str, ...]
    """Name of each label."""
    redundancy: float
    """Work done over the work of one whole pass."""
    memory_bytes: int
    """Host memory expected at most."""
    strips: Strips
    """In which order blocks are computed, and what is kept for that."""
    output_bytes: int
    """Size of the output before compression."""
    nodata: float | None = None
    """Value of the pixels that hold no data, besides NaN."""
    settings: Settings
    """What was asked for, and what was chosen for the rest."""
    labels_changed: float | None = None
    """Share of the pixels of the most varied tiles whose label is not that of fp32, where the
    precision was chosen by it; else ``None``."""
    asked: tuple[str, ...] = ()
    """Names of the settings that were asked for."""
    notes: tuple[str, ...] = ()
    """What was assumed."""
    warnings: tuple[str, ...] = ()
    """What the user should know."""

    @property
    def workers(self) -> int:
        """Blocks computed at the same time on each device."""
        return self.execution.workers

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that share the blocks, each with as many workers."""
        return device_list(self.settings.device or self.execution.device)

    @property
    def blocks_in_flight(self) -> int:
        """Blocks that are read, computed or written at the same time: one more for each device."""
        return len(self.devices) * (self.workers + 1)

    def on(self, devices: Sequence[str]) -> "Plan":
        """Return the plan for other devices of the same kind, or for some of its own."""
        return replace(
            self,
            execution=replace(self.execution, device=devices[0]),
            settings=replace(self.settings, device=device_text(devices)),
        )

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """Height and width of a pixel of the mask in ``image.unit``, where the image says it."""
        size, scale = self.image.levels[self.level].pixel_size, self.grid.scale
        return size and (size[0] * scale.down / scale.up, size[1] * scale.down / scale.up)

    @property
    def level0_pixels(self) -> tuple[float, float]:
        """Height and width of a pixel of the mask in pixels of the image's level 0."""
        scale = self.grid.scale
        y, x = (
            downsampling(long, short) * scale.down / scale.up
            for long, short in zip(
                self.image.levels[0].shape, self.image.levels[self.level].shape, strict=True
            )
        )
        return y, x

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the mask in pixels."""
        return self.grid.shape

    @property
    def stored_scores(self) -> tuple[str, str] | None:
        """Name and dtype of what is stored besides the mask."""
        kinds = {"probabilities": "float16", "logits": "float32"}
        name = self.settings.output or "labels"
        return (name, kinds[name]) if name in kinds else None

    @property
    def disk_bytes(self) -> int:
        """Size of the mask, its pyramid and what is stored besides on disk, at most."""
        scores = np.dtype(self.stored_scores[1]).itemsize if self.stored_scores else 0
        return disk_bytes(self.grid, self.recipe, scores)

    @property
    def fingerprint(self) -> str:
        """Hash of the plan; the same plan gives the same chunks, on however many devices."""
        alike = replace(self.on([device_kind(self.execution.device)]), memory_bytes=0)
        return hashlib.sha256(msgspec.json.encode(alike, order="sorted")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values, for JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Plan":
        """Return the plan that ``to_dict`` gave.

        Raises:
            OutputError: It was stored by a release that is not compatible, or is damaged.
        """
        if plain.get("version") != PLAN_VERSION:
            raise OutputError(
                f"the output was begun by another release (plan version {plain.get('version')}, "
                f"this one writes {PLAN_VERSION}); finish it there, or start again with overwrite"
            )
        try:
            return msgspec.convert(plain, cls, strict=False)
        except msgspec.ValidationError as error:
            raise OutputError(
                f"the output's plan cannot be read ({error}); start again with overwrite"
            ) from error

    def summary(self) -> dict[str, Any]:
        """Return the plan's main figures; sizes are ``[y, x]`` in pixels."""
        return {
            "shape": list(self.grid.shape),
            "scale": str(self.grid.scale),
            "tile": list(self.grid.tile),
            "core": list(self.grid.core),
            "window": list(self.grid.window),
            "chunk": list(self.grid.chunk),
            "block": list(self.grid.block),
            "tiles": self.grid.tiles,
            "blocks": self.grid.blocks,
            "redundancy": round(self.redundancy, 4),
            "memory_bytes": self.memory_bytes,
            "output_bytes": self.output_bytes,
            "disk_bytes": self.disk_bytes,
            "exact": self.exact,
            "blend": self.blend,
            "tta": self.settings.tta,
            "level": self.level,
            "channels": list(self.channels),
            "normalize": self.normalize,
            "nodata": self.nodata,
            "device": device_text(self.devices),
            "precision": self.execution.precision,
            "labels_changed": self.labels_changed,
            "backend": self.execution.backend,
            "batch": self.batch,
            "workers": self.workers,
            "threads": self.execution.threads,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def network_summary(facts: NetworkFacts, probe: Probe) -> dict[str, Any]:
    """Return what is known of a network; sizes are ``[y, x]`` in pixels."""
    y, x = probe.geometry.y, probe.geometry.x
    return {
        "name": facts.name,
        "backend": facts.backend,
        "sha256": facts.sha256,
        "input": [facts.batch, facts.channels, *facts.fixed],
        "output": [facts.batch, probe.classes, y.output(y.size), x.output(x.size)],
        "tile": [y.size, x.size],
        "margin": {
            "before": [axis.margin_before / axis.scale.up for axis in (y, x)],
            "after": [axis.margin_after / axis.scale.up for axis in (y, x)],
        },
        "scale": str(y.scale),
        "period": [y.period, x.period],
        "step": [y.step, x.step],
        "halo": {
            "before": [y.halo_before, x.halo_before],
            "after": [y.halo_after, x.halo_after],
        },
        "verdict": probe.verdict,
        "bounded": probe.bounded,
        "free_size": not (y.fixed and x.fixed),
        "disagreement": probe.disagreement,
        "head": facts.head,
        "ends_in": facts.ends_in,
        "class_names": list(facts.class_names),
        "class_colours": [list(colour) for colour in facts.class_colours],
        "normalize": facts.normalize,
        "percentiles": list(facts.percentiles) if facts.percentiles else None,
        "mean": list(facts.mean) if facts.mean else None,
        "std": list(facts.std) if facts.std else None,
        "preprocessing": asdict(facts.preprocessing) if facts.preprocessing else None,
        "activation": facts.activation,
        "threshold": facts.threshold,
        "pixel_size": list(facts.pixel_size) if facts.pixel_size else None,
        "declared": asdict(facts.declared) if facts.declared else None,
        "origins": dict(facts.origins),
        "tile_dependent": list(facts.tile_dependent),
    }
