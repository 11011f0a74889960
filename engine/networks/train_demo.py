"""Train the demo network on synthetic tissue: `python -m tile_infer.engine.networks.train_demo`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...tiler.box import Box
from .export import export_onnx
from .tissue import tissue
from .unet import UNet

TRAINING_SEEDS = tuple(range(100, 124))
VALIDATION_SEED = 7001
TEST_SEED = 7002
"""Seen once, at the end; the slide of ``tissue.DEMO_SEED`` is never seen."""

CLASSES = ("background", "nucleus")
WIDTH = 8
DEPTH = 4
_TILE_PX = 572
_OUTPUT_PX = 388
_MARGIN_PX = (_TILE_PX - _OUTPUT_PX) // 2
_PATCH_PX = 1024
_BATCH = 2

Bytes = NDArray[np.uint8]


def jpeg(image: Bytes, quality: int) -> Bytes:
    """Return ``(y, x, 3)`` after JPEG, as a slide file gives it."""
    import imagecodecs

    return np.asarray(imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(image, level=quality)))


def patch(
    seed: int, y: int, x: int, size: int = _PATCH_PX, quality: int = 90
) -> tuple[Bytes, Bytes]:
    """Return an image ``(y, x, 3)`` and its labels ``(y, x)`` from a slide."""
    made = tissue(Box.of(y, y + size, x, x + size), seed)
    return jpeg(made.image, quality), made.labels


def whole_pass(
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]], image: Bytes
) -> Bytes:
    """Label an image in one pass over its mirror extension.

    Args:
        network: Valid U-Net of depth 4, from ``(1, 3, y, x)`` in ``[0, 1]`` to logits.
        image: ``(y, x, 3)``.

    Returns:
        Labels ``(y, x)``.
    """
    height, width = image.shape[:2]
    margins = [(_MARGIN_PX, _MARGIN_PX + (4 - side) % 16) for side in (height, width)]
    extended = np.pad(image, [*margins, (0, 0)], mode="reflect")
    logits = network((extended.transpose(2, 0, 1)[None] / 255).astype(np.float32))
    return np.asarray(logits[0].argmax(0)[:height, :width], np.uint8)


def dice(labels: Bytes, truth: Bytes) -> float:
    """Return twice the overlap of two masks over the sum of their areas, 1 for two empty ones."""
    total = int(labels.sum()) + int(truth.sum())
    return 2 * int((labels & truth).sum()) / total if total else 1.0


def loss_of(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Return the class-balanced cross-entropy plus the nuclei's soft Dice loss."""
    nucleus = logits.softmax(1)[:, 1]
    overlap = 2 * (nucleus * truth).sum() / (nucleus.sum() + truth.sum() + 1)
    return nn.functional.cross_entropy(logits, truth, weight=weights) + 1 - overlap


class Sampler:
    """Random tiles of the training slides, turned, flipped and slightly recoloured."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.patches = []
        for slide in TRAINING_SEEDS:
            y, x = (int(v) for v in self.random.integers(-50_000, 50_000, 2))
            self.patches.append(patch(slide, y, x, quality=int(self.random.integers(75, 96))))
        share = float(np.mean([labels.mean() for _, labels in self.patches]))
        # Softened: full balance makes every nucleus too fat.
        self.weights = torch.tensor([1.0, ((1 - share) / share) ** 0.25])

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return images ``(batch, 3, y, x)`` in ``[0, 1]`` and the labels of their middles."""
        images, labels = zip(*(self._one() for _ in range(_BATCH)), strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def _one(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        image, truth = self.patches[self.random.integers(len(self.patches))]
        y, x = self.random.integers(0, _PATCH_PX - _TILE_PX + 1, 2)
        tile = image[y : y + _TILE_PX, x : x + _TILE_PX].transpose(2, 0, 1)
        y, x = y + _MARGIN_PX, x + _MARGIN_PX
        label = truth[y : y + _OUTPUT_PX, x : x + _OUTPUT_PX]
        turns, flip = int(self.random.integers(4)), bool(self.random.integers(2))
        tile, label = np.rot90(tile, turns, (1, 2)), np.rot90(label, turns)
        if flip:
            tile, label = tile[:, :, ::-1], label[:, ::-1]
        gain = self.random.uniform(0.9, 1.06, (3, 1, 1))
        power = self.random.uniform(0.85, 1.18)
        coloured = np.clip((tile / 255) ** power * gain, 0, 1)
        return coloured.astype(np.float32), np.ascontiguousarray(label, np.int64)


def train(steps: int, rate: float, seed: int, log: Callable[[str], None]) -> UNet:
    """Train the demo network and log loss, Dice and seconds."""
    torch.manual_seed(seed)
    start = time.perf_counter()
    sampler = Sampler(seed)
    validation = patch(VALIDATION_SEED, 0, 0)
    log(
        f"{len(TRAINING_SEEDS)} training patches of {_PATCH_PX} px, seeds {TRAINING_SEEDS[0]} to "
        f"{TRAINING_SEEDS[-1]}; validation seed {VALIDATION_SEED}; test seed {TEST_SEED}"
    )
    network = UNet(in_channels=3, classes=2, width=WIDTH, depth=DEPTH, dropout=0)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    log(
        f"U-Net width {WIDTH}, depth {DEPTH}: {sum(p.numel() for p in network.parameters())} "
        "parameters"
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.1)
    mean_loss = 0.0
    for step in range(1, steps + 1):
        images, truth = sampler.batch()
        loss = loss_of(network(images), truth, sampler.weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step, 50)
        if step % 100 == 0 or step == steps:
            score = dice(whole_pass(runner(network), validation[0]), validation[1])
            log(
                f"step {step} loss {mean_loss:.4f} validation Dice {score:.4f} "
                f"{time.perf_counter() - start:.0f} seconds"
            )
    return network


def runner(network: nn.Module) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return the network as a function of arrays."""

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        network.eval()
        with torch.inference_mode():
            logits = network(torch.from_numpy(image)).numpy()
        network.train()
        return np.asarray(logits)

    return run


def main() -> None:
    """Train, test on an unseen slide, export."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=here / "demo.onnx")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines: list[str] = []

    def log(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    log(
        f"steps {options.steps}, rate {options.rate}, seed {options.seed}, "
        f"threads {options.threads}"
    )
    network = train(options.steps, options.rate, options.seed, log)
    scores = []
    for y, x in ((0, 0), (20_000, -7_000)):
        image, truth = patch(TEST_SEED, y, x)
        scores.append(dice(whole_pass(runner(network), image), truth))
    log("test Dice on two unseen patches: " + ", ".join(f"{score:.4f}" for score in scores))
    export_onnx(
        network.to(memory_format=torch.contiguous_format),  # type: ignore[call-overload]
        options.out,
        in_channels=3,
        classes=CLASSES,
        normalize="unit",
    )
    (options.out.parent / "demo_training.log").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
