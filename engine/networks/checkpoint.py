"""A network's weights in a file from which it can be built again without running code."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...tiler.errors import MissingExtraError, ModelError, OutputError, first_line
from ..backends.metadata import Metadata, decode
from .registry import build

if TYPE_CHECKING:
    from torch import Tensor

    from .network import SegmentationNetwork


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file holds: plain values and tensors only, so that loading runs nothing."""

    network: str
    """Name in ``registry.NETWORKS``."""
    options: Mapping[str, Any]
    """Arguments it was built with, without those of its preset."""
    state: "Mapping[str, Tensor]"
    """Its ``state_dict()``."""
    metadata: Metadata = field(default_factory=Metadata)
    """What an exported file says of itself: class names, normalisation."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """What an interrupted training continues from: optimiser, step, figures so far."""

    def build(self) -> "SegmentationNetwork":
        """Return the network with its weights, in evaluation mode.

        Raises:
            ModelError: The weights are not those of such a network.
            SettingError: There is no such network, or it does not take such an option.
            MissingExtraError: Torch is not installed.
        """
        network = build(self.network, **self.options)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            raise ModelError(
                f"the weights are not those of {self.network} with {dict(self.options)} "
                f"({_reason(error)}); save options and state of one network"
            ) from error
        return network.eval()


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; an older file stays whole until the new one is complete.

    Args:
        path: The file.
        checkpoint: What it holds. ``training`` may have numbers, texts, lists, dicts, tensors.

    Raises:
        OutputError: The file cannot be written.
        MissingExtraError: Torch is not installed.
    """
    torch = _torch()
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    content = {
        "network": checkpoint.network,
        "options": dict(checkpoint.options),
        "state": dict(checkpoint.state),
        "metadata": checkpoint.metadata.stated(),
        "training": dict(checkpoint.training),
    }
    try:
        torch.save(content, partial)
        os.replace(partial, path)  # noqa: PTH105 - one step, on every system
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"checkpoint {path} cannot be written: {first_line(error)}") from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; tensors come to the CPU.

    Raises:
        ModelError: It cannot be read, or is no checkpoint of these networks.
        MissingExtraError: Torch is not installed.
    """
    torch = _torch()
    mend = "give one that tile-infer train wrote"
    if Path(path).suffix == ".onnx":
        raise ModelError(f"{path} is an ONNX file already; to write another, {mend}: FILE.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is in the file
        raise ModelError(
            f"checkpoint {path} cannot be read: it is damaged, or holds more than numbers; {mend}"
        ) from error
    keys = ("network", "options", "state", "metadata")
    if not isinstance(content, dict) or not set(keys) <= set(content):
        raise ModelError(
            f"checkpoint {path} is none of these networks: it needs {', '.join(keys)}; {mend}"
        )
    metadata = _metadata(content["metadata"], f"checkpoint {path}")
    return Checkpoint(
        content["network"],
        content["options"],
        content["state"],
        metadata,
        content.get("training", {}),
    )


def _metadata(stated: Mapping[str, Any], where: str) -> Metadata:
    import msgspec

    try:
        # By way of JSON, where types and ranges are checked.
        return decode(msgspec.json.encode(stated), f"metadata of {where}")
    except TypeError as error:
        raise ModelError(f"metadata of {where} is no JSON: {first_line(error)}") from error


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Torch heads its list of mismatches with a line that names the class only.
    return (lines[1] if len(lines) > 1 and lines[0].startswith("Error") else first_line(error))[
        :200
    ]


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("checkpoints need Torch: pip install torch") from error
    return torch
