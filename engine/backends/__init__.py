"""Run a network: ONNX Runtime, OpenVINO or Torch."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from ...tiler.errors import ModelError
from ..url import is_url
from .base import Network
from .model_file import check_trust, file_kind

__all__ = ["Network", "open_network"]

# Read by Torch when it is loaded. On a CPU it takes new memory for every layer's result, and large
# pages are had in a tenth of the time: a fifth of the run, for tiles of 1200 px.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def open_network(
    model: "str | os.PathLike[str] | Any", head: str | None = None, *, trust_model: bool = False
) -> Network:
    """Open a network.

    Args:
        model: Path of an ``.onnx``, TorchScript or ``torch.export`` file, of a
            ``bioimageio.yaml`` or its package, or a ``torch.nn.Module``.
        head: Name or index of the output to use; needed where there are several.
        trust_model: Whether a file may be opened that can run code.

    Raises:
        ModelError: It is none of these, or cannot be tiled.
        SettingError: The file can run code and is not trusted, or has no such output.
    """
    if isinstance(model, str | os.PathLike):
        if is_url(model):  # it may hold a password
            raise ModelError(
                "a model is read from a file, not by URL; download it, and give its path"
            )
        from .described import open_described

        return open_described(Path(model), head, partial(_open_file, trust_model=trust_model))
    # Whoever made a module has imported torch; nobody else pays for that.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from .torch import TorchNetwork

        return TorchNetwork(model, head)
    raise ModelError(
        f"model is a {type(model).__name__}; give the path of an .onnx file or a torch.nn.Module"
    )


def _open_file(path: Path, head: str | None, *, trust_model: bool) -> Network:
    kind = file_kind(path)
    check_trust(path, kind, trust_model)
    if kind == "onnx":
        from .onnx import OnnxNetwork

        return OnnxNetwork(path, head)
    from .torch_file import open_torch_file

    return open_torch_file(path, kind, head)
