"""Move pixels to a device and results back, while other threads compute there."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Transfer:
    """Copies between host and device.

    On a GPU each thread has a stream, so that its copies overlap the others' work, and one buffer
    of pinned memory for each way, which is used again for every batch.
    """

    def __init__(self, device: torch.device, *, overlapping: bool) -> None:
        """Take the device.

        Args:
            device: Where the network runs.
            overlapping: Whether the runs of several threads may be under way there at once.
        """
        self.device = device
        self.overlapping = overlapping and device.type == "cuda"
        self._mine = local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Run what is inside on this thread's stream."""
        if not self.overlapping:
            yield
            return
        if not hasattr(self._mine, "stream"):
            self._mine.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            # The weights were put there by the stream that all share.
            self._mine.stream.wait_stream(torch.cuda.default_stream(self.device))
        with torch.cuda.stream(self._mine.stream):
            yield

    def there(self, tiles: NDArray[np.generic]) -> torch.Tensor:
        """Return tiles on the device; on the CPU they are not copied."""
        images = torch.from_numpy(np.ascontiguousarray(tiles))
        if not self.overlapping:
            return images.to(self.device)
        return self._pinned("there", images).copy_(images).to(self.device, non_blocking=True)

    def back(self, *results: torch.Tensor | None) -> list[NDArray[Any] | None]:
        """Return results as arrays of the caller's own."""
        if not self.overlapping:
            return [found if found is None else found.cpu().numpy() for found in results]
        held = [
            found if found is None else self._pinned(f"back {place}", found)
            for place, found in enumerate(results)
        ]
        for found, buffer in zip(results, held, strict=True):
            if found is not None and buffer is not None:
                buffer.copy_(found, non_blocking=True)
        self._mine.stream.synchronize()
        return [buffer if buffer is None else buffer.numpy().copy() for buffer in held]

    def _pinned(self, name: str, like: torch.Tensor) -> torch.Tensor:
        buffer: torch.Tensor | None = getattr(self._mine, name, None)
        if buffer is None or (buffer.shape, buffer.dtype) != (like.shape, like.dtype):
            buffer = torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
            setattr(self._mine, name, buffer)
        return buffer
