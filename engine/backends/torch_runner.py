"""Raw pixels in, labels out, around a network that is run by Torch."""

import numpy as np
import torch
from numpy.typing import NDArray

from .base import Execution, Output, Recipe
from .torch_graph import Call
from .torch_transfer import Transfer


class TorchRunner:
    """What happens on the device: normalise, run, crop, decide."""

    def __init__(
        self, run: Call, number: torch.dtype, recipe: Recipe, execution: Execution
    ) -> None:
        """Put the constants on the device.

        Args:
            run: From normalised tiles ``(batch, channel, y, x)`` to logits.
            number: Type of the tiles that it takes.
            recipe: What happens around it.
            execution: Where.
        """
        self.run, self.number, self.recipe, self.execution = run, number, recipe, execution
        self.device = torch.device(execution.device)
        # A module that is run as it is may keep things on itself: there, one stream is for all.
        self.transfer = Transfer(self.device, overlapping=execution.form != "module")
        per_channel = (1, recipe.channels, 1, 1)
        # What has more digits than float32 loses them only once it is centred.
        self.exact = getattr(torch, recipe.arithmetic)
        options = {"dtype": self.exact, "device": self.device}
        self.offset = torch.tensor(recipe.offset, **options).reshape(per_channel)
        self.scale = torch.tensor(recipe.scale, **options).reshape(per_channel)
        self.label_type = getattr(torch, recipe.label_dtype)

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        """Run raw pixels ``(batch, y, x, channel)``."""
        if self.device.type == "cpu":
            torch.set_num_threads(self.execution.threads)
        recipe = self.recipe
        # no_grad: what a module keeps of an inference_mode run could not be trained with later.
        with torch.no_grad(), self.transfer.turn():
            images = self.transfer.there(tiles).permute(0, 3, 1, 2)
            if recipe.normalizes:
                images = (images.to(self.exact) - self.offset) * self.scale
                if recipe.clip != (None, None):
                    images = images.clamp(*recipe.clip)
            logits = self.run(images.to(self.number))
            (y, x), (height, width) = recipe.crop, recipe.window
            logits = logits[:, :, y : y + height, x : x + width].float()
            labels, scores = self.transfer.back(
                self._labels(logits) if recipe.labels else None,
                self._scores(logits) if recipe.scores else None,
            )
        return Output(labels, scores)

    def _labels(self, logits: torch.Tensor) -> torch.Tensor:
        if self.recipe.classes == 1:
            labels = (logits[:, 0] > self.recipe.logit_threshold).to(torch.uint8)
        else:
            # A running maximum: argmax along the channels is 50 times slower on a CPU.
            best = logits[:, 0]
            # Torch can do little with uint16.
            kind = torch.uint8 if self.label_type == torch.uint8 else torch.int32
            labels = torch.zeros(best.shape, dtype=kind, device=best.device)
            for index in range(1, self.recipe.classes):
                labels.masked_fill_(logits[:, index] > best, index)
                best = torch.maximum(best, logits[:, index])
        # NaN and infinity times zero are NaN, and a sum hands NaN on: one pass finds both.
        broken = (logits * 0).sum(dim=1).isnan()
        return labels.masked_fill_(broken, self.recipe.not_computed).to(self.label_type)

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        scores = logits
        if self.recipe.scores == "probabilities":
            if self.recipe.activation == "sigmoid":
                scores = logits.sigmoid() + logits * 0  # NaN for infinity, which sigmoid hides
            elif self.recipe.activation == "softmax":
                scores = logits.softmax(dim=1) + logits * 0
        return scores.to(getattr(torch, self.recipe.scores_dtype))
