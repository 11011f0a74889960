"""Where a device has less memory than was counted on: how that is told, and fewer tiles at once."""

import re
import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .backends.base import Output, Runner
from .plan import Plan
from .settings import Settings
from .sizing import device_budget

_SAID = re.compile(
    r"out of memory"
    r"|(?:can't|failed to) allocate memory"
    r"|bad[_ ]alloc"  # of C++, as ONNX Runtime and OpenVINO hand it on
    r"|cublas_status_alloc_failed|cudnn_status_alloc_failed|allocation_failed"
    r"|could not create a (?:memory object|primitive)$"  # all that oneDNN says
    r"|failed to serialize proto",  # and protobuf, which ONNX files are written by
    re.IGNORECASE | re.MULTILINE,
)
"""How the libraries tell that they have run out of memory: each has an error of its own."""

_LEAST_BYTES = 1 << 20
"""Of a GPU's memory; no network runs in less."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether a library has run out of memory, or an error comes from one that has.

    >>> is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    True
    """
    if isinstance(error, MemoryError) or _SAID.search(str(error)):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def memory_of(device: str) -> str:
    """Return the memory of a device as it is told, such as ``memory of cuda:0``."""
    return f"memory of {'this machine' if device == 'cpu' else device}"


class HalvingRunner:
    """Runs batches; where one does not fit the memory, it and all later ones in halves."""

    def __init__(self, run: Runner, least: int = 1) -> None:
        """Take the runner that does the work, and the smallest batch that it takes."""
        self.run, self.least = run, least
        self.most: int | None = None
        """Tiles that are run at once, since more did not fit."""
        self._lock = threading.Lock()

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        """Run raw pixels ``(batch, y, x, channel)``.

        Raises:
            Exception: What the runner raises, if not for want of memory, or for the smallest batch.
        """
        while True:
            most = min(self.most or len(tiles), len(tiles))
            try:
                parts = [self.run(tiles[n : n + most]) for n in range(0, len(tiles), most)]
            except Exception as error:
                if most <= self.least or not is_out_of_memory(error):
                    raise
            else:
                return parts[0] if len(parts) == 1 else _joined(parts, most, tiles.shape[1:3])
            # Only here is the error gone, and with it what it held of the device's memory.
            with self._lock:
                self.most = min(self.most or most, most // 2)


def _joined(parts: list[Output], most: int, tile: tuple[int, ...]) -> Output:
    labels = [part.labels for part in parts if part.labels is not None]
    scores = [part.scores for part in parts if part.scores is not None]
    height, width = tile
    return Output(
        np.concatenate(labels) if labels else None,
        np.concatenate(scores) if scores else None,
        (height, width, most),
    )


def with_less_memory(plan: Plan, settings: Settings) -> Settings | None:
    """Return settings for half the batch, or half the GPU's memory; ``None`` at the end."""
    if plan.batch > 1 and plan.network.batch is None:
        return replace(settings, batch_size=plan.batch // 2)
    half = device_budget(plan.devices, settings) // 2
    return replace(settings, device_memory=half) if half >= _LEAST_BYTES else None
