"""The network that everybody runs, which counts what it is given."""

from pathlib import Path

import torch


class Counted(torch.nn.Module):
    """A network that counts the pixels that it is given."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.module = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
        self.input_px = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(batch, class, y, x)``."""
        self.input_px += images.shape[0] * images.shape[2] * images.shape[3]
        logits: torch.Tensor = self.module(images)
        return logits
