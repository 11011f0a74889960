"""What the training benchmarks share: runs that can be stopped and continued, paired figures."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.training.history import write_csv, write_curves
from tile_infer.engine.training.images import Labelled
from tile_infer.engine.training.progress import Progress
from tile_infer.engine.training.settings import TrainingSettings
from tile_infer.engine.training.trainer import Subject, Trained, train

WORK = Path(__file__).parent.parent / "build" / "trainings"


@dataclass
class Budget:
    """Minutes that all trainings of this call may take together."""

    minutes: float
    begun: float = 0.0

    def __post_init__(self) -> None:
        self.begun = time.monotonic()

    @property
    def left(self) -> float:
        """Minutes left."""
        return self.minutes - (time.monotonic() - self.begun) / 60

    def settings(
        self, recipe: TrainingSettings, asked: argparse.Namespace, seed: int
    ) -> TrainingSettings | None:
        """Return the recipe as asked for on the command line; ``None`` if the time is up."""
        if self.left <= 0:
            return None
        return replace(
            recipe,
            steps=asked.steps,
            seed=seed,
            minutes=self.left,
            threads=asked.threads,
            device=asked.device,
        )


def options(about: str | None, steps: int, width: int) -> argparse.ArgumentParser:
    """Return the options that every training benchmark has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--minutes", type=float, default=60, help="time for this call in all")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--width", type=int, default=width, help="channels of the first level")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, default=WORK, help="where checkpoints are kept")
    return parser


def run(
    name: str,
    folder: Path,
    subject: Subject,
    images: Sequence[Labelled],
    validation: Sequence[Labelled],
    settings: TrainingSettings | None,
    test: Callable[[Path], dict[str, Any]],
) -> dict[str, Any] | None:
    """Train, export and test one network, or continue; ``None`` if the time was not enough.

    Args:
        name: Of the run; its files are called so.
        folder: Where they go.
        subject: The network.
        images: What it learns from.
        validation: What the best weights are chosen by.
        settings: How it is trained; ``None`` if it cannot be now.
        test: Measures the exported file, once, at the end.
    """
    if settings is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    result, model = folder / f"{name}.json", folder / f"{name}.onnx"
    if result.exists():
        found: dict[str, Any] = json.loads(result.read_text())
        if found["recipe"] != _plain(settings.fixed()) or found["steps"] > settings.steps:
            raise SystemExit(f"{result} is of another recipe; delete it, or choose another --work")
        if found["steps"] == settings.steps:
            return found
    trained = train(subject, images, validation, settings, folder / f"{name}.pt", said(name))
    write_csv(folder / f"{name}.csv", trained.rows)
    write_curves(folder / f"{name}.png", trained.rows)
    if not trained.finished:
        return None
    export(trained, subject, model)
    last = trained.rows[-1]
    best = next(row for row in trained.rows if row.step == trained.best_step)
    figures = {
        "name": name,
        "steps": settings.steps,
        "steps_done": last.step,
        "best_step": best.step,
        "seconds": round(last.seconds, 1),
        "parameters": sum(part.numel() for part in trained.network.parameters()),
        "validation_dice": best.dice,
        **test(model),
        "recipe": _plain(settings.fixed()),
    }
    result.write_text(json.dumps(figures, indent=1) + "\n")
    print(name, json.dumps({key: figures[key] for key in figures if key != "recipe"}), flush=True)
    return figures


def export(trained: Trained, subject: Subject, path: Path) -> None:
    """Write the network with what its file is to say of itself."""
    stated = subject.metadata.stated()
    export_onnx(trained.network, path, in_channels=subject.options["in_channels"], **stated)


def said(name: str) -> Callable[[Progress], None]:
    """Return what prints a line per look at the validation images."""
    told = -1

    def say(progress: Progress) -> None:
        nonlocal told
        if told == -1:
            print(f"{name}: from step {progress.step}", flush=True)
            told = len(progress.rows)
        if len(progress.rows) > told:
            told = len(progress.rows)
            row = progress.rows[-1]
            print(
                f"{name}: step {row.step} of {progress.steps}, loss {row.loss:.4f}, "
                f"validation Dice {row.dice:.4f}, {row.seconds:.0f} s",
                flush=True,
            )

    return say


def summary(rows: Iterable[dict[str, Any]], key: str) -> dict[str, float | None]:
    """Return mean and standard deviation over the seeds; ``None`` for the spread of one."""
    values = np.array([row[key] for row in rows], float)
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "standard_deviation": spread}


def paired(
    rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], key: str
) -> dict[str, Any]:
    """Return the differences seed by seed, their mean, and p of the paired t test.

    With three seeds p below 0.05 needs a mean of 2.5 standard deviations of the differences.
    """
    from scipy import stats

    by_seed = {row["seed"]: row[key] for row in others}
    seeds = [row["seed"] for row in rows if row["seed"] in by_seed]
    pairs = [(row[key], by_seed[row["seed"]]) for row in rows if row["seed"] in by_seed]
    differences = np.array([one - other for one, other in pairs])
    p = None
    if len(pairs) > 1 and differences.std() > 0:
        p = float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
    return {
        "measure": key,
        "seeds": seeds,
        "differences": differences.tolist(),
        "mean": float(differences.mean()) if len(pairs) else None,
        "p": p,
    }


def unfinished(missing: Sequence[str]) -> None:
    """Say what is left, and end with exit code 3."""
    print(f"time is up; the same command continues with {', '.join(missing)}")
    sys.exit(3)


def seconds_per_megapixel(
    calls: Sequence[Callable[[NDArray[np.float32]], Any]], channels: int, side: int
) -> list[float]:
    """Return the median of seven runs of each over one square tile, run in turns."""
    tile = np.random.default_rng(0).random((1, channels, side, side), np.float32)
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(8):  # the first warms up
        for call, taken in zip(calls, times, strict=True):
            begun = time.perf_counter()
            call(tile)
            taken.append(time.perf_counter() - begun)
    return [float(np.median(taken[1:])) / (side * side / 1e6) for taken in times]


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values))
