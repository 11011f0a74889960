"""Export of a Torch network to one ONNX file that says what its axes and channels mean."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...tiler.errors import MissingExtraError, SettingError
from ..backends.onnx_metadata import METADATA_KEY

if TYPE_CHECKING:
    from torch import nn

_OPSET = 18
_EXAMPLE_PX = 512


def export_onnx(
    module: "nn.Module",
    path: str | Path,
    *,
    in_channels: int,
    size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    normalize: str | None = None,
    batch: int | None = None,
) -> None:
    """Write a network as ONNX, from ``image`` to ``logits``, both ``(batch, channel, y, x)``.

    The logits are raw: a softmax or argmax at the end would hide how close two classes are.

    Args:
        module: Network that maps ``(batch, in_channels, y, x)`` float32 to logits.
        path: File to write; weights are inside, so it must stay under 2 GB.
        in_channels: Channels of the image.
        size: Height and width in pixels, the only ones the file will take; free where ``None``.
        classes: Names of the output channels, for the mask's metadata.
        normalize: How pixels become the network's input, e.g. ``unit`` for ``[0, 1]``.
        batch: Tiles per call, the only number the file will take; free where ``None``.

    Raises:
        SettingError: A size is below 1, or the number of classes is not that of the logits.
        MissingExtraError: Torch is not installed.
    """
    if min(in_channels, *(size or (1, 1)), 1 if batch is None else batch) < 1:
        raise SettingError(
            f"an export needs in_channels, size and batch >= 1; got {in_channels}, {size}, {batch}"
        )
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            "exporting a network needs Torch: pip install 'tile-infer[torch]'"
        ) from error
    import onnx

    free = {} if batch is not None else {0: "batch"}
    free_in, free_out = dict(free), dict(free)
    if size is None:
        free_in |= {2: "y", 3: "x"}
        free_out |= {2: "y_out", 3: "x_out"}
    height, width = size or _example_size(module)
    example = torch.zeros(batch or 1, in_channels, height, width)
    trained = module.training
    module.eval()
    try:
        with torch.no_grad():
            channels = int(module(example).shape[1])
        if classes is not None and len(classes) != channels:
            raise SettingError(
                f"classes must name each output channel: got {len(classes)} names for {channels}"
            )
        with warnings.catch_warnings():
            # The exporter built on torch.export gives the same numbers, but takes 60 times as long,
            # needs onnxscript and guesses which sizes are related; this one is only called old.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                module,
                (example,),
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes={"image": free_in, "logits": free_out},
            )
    finally:
        module.train(trained)

    known = {"classes": list(classes) if classes is not None else None, "normalize": normalize}
    stated = {key: value for key, value in known.items() if value is not None}
    graph = onnx.load(str(path))
    if stated:
        onnx.helper.set_model_props(graph, {METADATA_KEY: json.dumps(stated)})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def _example_size(module: "nn.Module") -> tuple[int, int]:
    from .unet import UNet

    if not isinstance(module, UNet):
        return _EXAMPLE_PX, _EXAMPLE_PX
    # Unequal, so that no step can take one axis for the other.
    return module.smallest + module.period, module.smallest + 2 * module.period
