"""How a network is trained."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from ...tiler.errors import SettingError
from .augmentation import Augmentation
from .weight_map import WeightMap

Optimizer = Literal["sgd", "adam"]
LossName = Literal["cross_entropy", "hybrid"]
Schedule = Literal["constant", "cosine"]

_MAY_CHANGE = ("steps", "rate", "minutes", "patience", "threads", "device")
"""What may differ when an interrupted training continues."""

_SEEDS = 1 << 32
"""Seed and step together must fit into 64 bits."""

USUAL_RATES = {"sgd": 1e-3, "adam": 1e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The recipe; the defaults are the U-Net paper's."""

    steps: int = 2000
    """How often the weights are changed."""
    optimizer: Optimizer = "sgd"
    """SGD with momentum, or Adam."""
    rate: float | None = None
    """Learning rate; 0.001 where ``None``."""
    momentum: float = 0.99
    """Of SGD."""
    schedule: Schedule = "cosine"
    """Whether the rate stays, or falls along a cosine to 0 at the last step; either rises over
    ``warm_up`` steps first."""
    warm_up: int = 50
    """Steps over which the rate rises from 0."""
    clip: float | None = 1.0
    """Largest norm of a gradient; larger ones are shortened."""
    batch: int = 1
    """Tiles per step."""
    tile: int = 572
    """Largest side of a tile, in pixels of the network's input."""
    loss: LossName = "cross_entropy"
    """Weighted cross-entropy, or with soft Dice in addition."""
    weight_map: WeightMap = field(default_factory=WeightMap)
    """Weights of the pixels."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random variation of the tiles."""
    validate_every: int = 100
    """Steps between two looks at the validation images; a checkpoint is written each time."""
    patience: int | None = None
    """Training ends when the validation images have not got better so many times in a row."""
    minutes: float | None = None
    """Time after which this run ends, at the next checkpoint; the same command continues."""
    seed: int = 0
    """Of the first weights and of all tiles."""
    threads: int | None = None
    """CPU threads; as many as Torch takes where ``None``."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N``."""

    def __post_init__(self) -> None:
        for name, kinds in (("optimizer", Optimizer), ("loss", LossName), ("schedule", Schedule)):
            if getattr(self, name) not in get_args(kinds):
                raise SettingError(
                    f"{name}={getattr(self, name)!r} is not possible; "
                    f"use one of {', '.join(get_args(kinds))}"
                )
        for name in ("steps", "batch", "tile", "validate_every", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{name}={value} is not possible; use 1 or more")
        for name in ("rate", "clip", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingError(f"{name}={value} is not possible; use a number above 0")
        if not 0 <= self.momentum < 1:
            raise SettingError(
                f"momentum={self.momentum} is not possible; use 0 or more, and less than 1"
            )
        if self.warm_up < 0:
            raise SettingError(f"warm_up={self.warm_up} is not possible; use 0 or more")
        if not 0 <= self.seed < _SEEDS:
            raise SettingError(
                f"seed={self.seed} is not possible; use a number from 0 to {_SEEDS - 1}"
            )

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, the first being 1."""
        from math import cos, pi

        rate = self.rate or USUAL_RATES[self.optimizer]
        rising = min(1.0, step / (self.warm_up + 1))
        falling = (1 + cos(pi * (step - 1) / self.steps)) / 2 if self.schedule == "cosine" else 1.0
        return rate * rising * falling

    def fixed(self) -> dict[str, Any]:
        """Return what must be the same when a training continues, as plain values."""
        return {name: value for name, value in asdict(self).items() if name not in _MAY_CHANGE}
