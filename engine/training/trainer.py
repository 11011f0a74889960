"""The training itself, step by step, such that it can be interrupted and continued."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from ...tiler.errors import ModelError, NumericError, SettingError
from ..backends.metadata import Metadata
from ..networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ..networks.network import SegmentationNetwork
from ..networks.registry import build
from .history import Row
from .images import Labelled, class_counts, digest_of, weight_maps
from .losses import LOSSES, deeply_supervised
from .progress import Progress
from .settings import TrainingSettings
from .tiles import Tile, TileSampler, TileShape
from .validation import Score, validate, validation_tile

_NONE = float("nan")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is trained, and what for."""

    network: str
    """Name in the registry of networks."""
    options: Mapping[str, Any]
    """Arguments it is built with."""
    classes: tuple[str, ...]
    """Name of each class, the background first."""
    metadata: Metadata
    """What the trained file is to say of itself."""


class Trained(NamedTuple):
    """How a run ended."""

    network: SegmentationNetwork
    """With the weights that did best on the validation images; without such, the last."""
    rows: tuple[Row, ...]
    """Figures of all runs."""
    best_step: int
    """Steps after which the weights were as returned."""
    finished: bool
    """Whether all steps are done or patience ended; else the time was up, and it can continue."""
    tile: TileShape
    """Tiles it learnt from."""


def train(
    subject: Subject,
    images: Sequence[Labelled],
    validation: Sequence[Labelled],
    settings: TrainingSettings,
    checkpoint: Path,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Trained:
    """Train a network, or continue where the checkpoint ends.

    In one process or in several, with the same settings, images and number of threads, the result
    is the same: every tile depends on seed and step alone.

    Args:
        subject: The network.
        images: What it learns from.
        validation: What it is measured on; may be empty.
        settings: How.
        checkpoint: File that is written at each look at the validation images, and read first.
        progress: Called after each step.

    Raises:
        SettingError: A class is missing, a tile is too small, patience has nothing to go by, or the
            checkpoint is of other settings or images.
        NumericError: The loss became NaN or infinite; the checkpoint is the last good one.
        ModelError: The checkpoint cannot be read.
        OutputError: It cannot be written.
    """
    if not images:
        raise SettingError("training needs at least one image; got none")
    if settings.patience is not None and not validation:
        raise SettingError("patience needs images to measure on; give more images, or leave it out")
    counts = class_counts(images, subject.classes, validation)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = build(subject.network, **subject.options)
    tile = TileShape.largest(network, settings.tile)
    run = _Run(subject, network, tile, settings, checkpoint, digest_of(images, validation))
    run.resume()
    if run.finished:
        return run.result()
    weights = weight_maps(images, counts, settings.weight_map)
    sampler = TileSampler(images, weights, tile, settings.augmentation, settings.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads or threads)
    try:
        run.steps(sampler, validation, progress)
    finally:
        torch.set_num_threads(threads)
    return run.result()


class _Run:
    """One process' share of a training."""

    def __init__(
        self,
        subject: Subject,
        network: SegmentationNetwork,
        tile: TileShape,
        settings: TrainingSettings,
        checkpoint: Path,
        data: str,
    ) -> None:
        self.subject, self.tile, self.settings, self.path = subject, tile, settings, checkpoint
        self.device = torch.device(settings.device)
        self.network = network.to(self.device)
        # As plain JSON values, which is what a checkpoint gives back.
        fixed = {**settings.fixed(), "classes": subject.classes, "data": data}
        self.fixed = msgspec.json.decode(msgspec.json.encode(fixed))
        self.optimizer = _optimizer(self.network, settings)
        self.loss = LOSSES[settings.loss]
        self.step, self.seconds = 0, 0.0
        self.rows: list[Row] = []
        self.best: Row | None = None
        self.best_state: dict[str, torch.Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        if self.step >= self.settings.steps:
            return True
        if self.settings.patience is None or self.best is None:
            return False
        since = [row for row in self.rows if row.step > self.best.step]
        return len(since) >= self.settings.patience

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if not self.path.exists():
            return
        found = load_checkpoint(self.path)
        state = dict(found.training)
        self._check(found, state)
        try:
            self.network.load_state_dict(state["last"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.seconds = state["step"], state["seconds"]
            self.rows = [Row(**row) for row in state["rows"]]
            self.best = next(row for row in self.rows if row.step == state["best_step"])
        except (KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
            raise ModelError(
                f"checkpoint {self.path} is damaged; delete it or use overwrite"
            ) from error
        self.best_state = dict(found.state)

    def _check(self, found: Checkpoint, state: dict[str, Any]) -> None:
        mend = "give the same again, or use overwrite to start anew"
        if "fixed" not in state:
            raise SettingError(f"{self.path} is no checkpoint of a training; use overwrite")
        if (found.network, dict(found.options)) != (
            self.subject.network,
            dict(self.subject.options),
        ):
            raise SettingError(
                f"{self.path} is of {found.network} with {dict(found.options)}, not of "
                f"{self.subject.network} with {dict(self.subject.options)}; {mend}"
            )
        for name, value in self.fixed.items():
            was = state["fixed"].get(name)
            if was != value and name == "data":
                raise SettingError(f"{self.path} was made from other images or labels; {mend}")
            if was != value:
                raise SettingError(f"{self.path} was made with {name}={was}, not {value}; {mend}")
        # Weights that learnt from pixels normalised in one way are of no use with another.
        was, now = map(_normalisation, (found.metadata, self.subject.metadata))
        if was != now:
            raise SettingError(
                f"{self.path} was made from pixels normalised by {was}, not by {now}; {mend}"
            )

    def steps(
        self,
        sampler: TileSampler,
        validation: Sequence[Labelled],
        progress: Callable[[Progress], None],
    ) -> None:
        """Do the steps that are left, until the time is up."""
        settings = self.settings
        begun, before = time.monotonic(), self.seconds
        losses: list[float] = []
        with ThreadPoolExecutor(1) as pool, torch.random.fork_rng():
            # The next tiles are made while the network learns from these.
            coming: Future[Tile] = pool.submit(sampler.batch, self.step + 1, settings.batch)
            while not self.finished:
                tiles = coming.result()
                self.step += 1
                coming = pool.submit(sampler.batch, self.step + 1, settings.batch)
                losses.append(loss := self._learn(tiles))
                measured = not self.step % settings.validate_every or self.step >= settings.steps
                if measured:
                    score = self._score(validation)
                    self.seconds = before + time.monotonic() - begun
                    self._note(sum(losses) / len(losses), score)
                    losses = []
                progress(Progress(self.step, settings.steps, loss, tuple(self.rows)))
                spent = time.monotonic() - begun
                if measured and settings.minutes and spent > 60 * settings.minutes:
                    break

    def _learn(self, tiles: Tile) -> float:
        """Change the weights once; return the loss before."""
        # Dropout depends on seed and step alone, like the tiles.
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(self.step)
        self.network.train()
        image, truth, weights = (torch.from_numpy(part).to(self.device) for part in tiles)
        loss = deeply_supervised(self.loss, self.network.heads(image), truth, weights)
        value = float(loss.detach())
        if not isfinite(value):
            raise self._diverged(f"the loss is {value} at step {self.step}")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        return value

    def _score(self, validation: Sequence[Labelled]) -> Score:
        # Weights that a last step has made NaN must not overwrite a good checkpoint.
        if not all(bool(torch.isfinite(part).all()) for part in self.network.state_dict().values()):
            raise self._diverged(f"a weight is NaN or infinite after step {self.step}")
        if not validation:
            return Score(_NONE, _NONE, _NONE, _NONE)
        tile = validation_tile(self.network, validation, self.settings.tile)
        return validate(self.network, validation, tile, self.network.period, self.device)

    def _diverged(self, what: str) -> NumericError:
        kept = "nothing was kept yet"
        if self.rows:
            kept = f"{self.path} keeps step {self.rows[-1].step}, from which a new run continues"
        return NumericError(f"{what}; use a smaller rate ({kept})")

    def _note(self, loss: float, score: Score) -> None:
        """Keep the figures, the best weights, and all that a continued training needs."""
        rate = self.settings.rate_at(self.step)
        scores = score.loss, score.dice, score.iou, score.pixel_error
        row = Row(self.step, self.seconds, rate, loss, *scores)
        self.rows.append(row)
        state = {name: part.cpu().clone() for name, part in self.network.state_dict().items()}
        if self.best is None or _is_better(row, self.best):
            self.best, self.best_state = row, state
        training = {
            "fixed": self.fixed,
            "last": state,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "rows": [asdict(row) for row in self.rows],
            "best_step": self.best.step,
        }
        subject = self.subject
        made = Checkpoint(
            subject.network, subject.options, self.best_state, subject.metadata, training
        )
        save_checkpoint(self.path, made)

    def result(self) -> Trained:
        """Return the network with its best weights."""
        self.network.load_state_dict(self.best_state)
        network = self.network.cpu().eval()
        best_step = 0 if self.best is None else self.best.step
        return Trained(network, tuple(self.rows), best_step, self.finished, self.tile)


def _is_better(row: Row, best: Row) -> bool:
    """Compare Dice, and the loss where Dice is alike; without validation images, the last is best.

    Early in a training many rows have the same Dice: nothing is found yet.
    """
    if not isfinite(row.dice):
        return True
    return (row.dice, -row.validation_loss) > (best.dice, -best.validation_loss)


def _normalisation(metadata: Metadata) -> str:
    if metadata.mean is None:
        return f"normalize={metadata.normalize}"
    return f"mean {metadata.mean} and deviation {metadata.std}"


def _optimizer(network: torch.nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    rate = settings.rate_at(1)
    if settings.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=rate)
    return torch.optim.SGD(network.parameters(), lr=rate, momentum=settings.momentum)
