"""Run a network: ONNX Runtime, OpenVINO or Torch."""

import os
import sys
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from ...tiler.errors import ModelError
from .base import Network
from .model_file import check_trust, file_kind

__all__ = ["Network", "network_in_use", "open_network"]

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


def network_in_use(
    model: "str | os.PathLike[str] | Any", head: str | None = None, *, trust_model: bool = False
) -> AbstractContextManager[Network]:
    """Open a network while it is used, see ``open_network``; one that is open stays so."""
    if isinstance(model, Network):
        return nullcontext(model)
    return closing(open_network(model, head, trust_model=trust_model))


def _open_file(path: Path, head: str | None, *, trust_model: bool) -> Network:
    kind = file_kind(path)
    check_trust(path, kind, trust_model)
    if kind == "onnx":
        from .onnx import OnnxNetwork

        return OnnxNetwork(path, head)
    from .torch_file import open_torch_file

    return open_torch_file(path, kind, head)
