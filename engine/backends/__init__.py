"""Run a network: ONNX Runtime or Torch."""

import os
import sys
from pathlib import Path
from typing import Any

from ...tiler.errors import ModelError
from .base import Network

__all__ = ["Network", "open_network"]


def open_network(model: "str | os.PathLike[str] | Any", head: str | None = None) -> Network:
    """Open a network.

    Args:
        model: Path of an ``.onnx`` file, of a ``bioimageio.yaml`` or its package, or a
            ``torch.nn.Module``.
        head: Name or index of the output to use; needed where there are several.

    Raises:
        ModelError: It is neither, or cannot be tiled.
    """
    if isinstance(model, str | os.PathLike):
        from .described import open_described

        return open_described(Path(model), head, _open_file)
    # Whoever made a module has imported torch; nobody else pays for that.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from .torch import TorchNetwork

        return TorchNetwork(model, head)
    raise ModelError(
        f"model is a {type(model).__name__}; give the path of an .onnx file or a torch.nn.Module"
    )


def _open_file(path: Path, head: str | None) -> Network:
    from .onnx import OnnxNetwork

    return OnnxNetwork(path, head)
