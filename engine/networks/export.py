"""Export of a Torch network to one ONNX file that says what its axes and channels mean."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...tiler.errors import MissingExtraError, SettingError
from ..backends.base import Activation
from ..backends.metadata import METADATA_KEY, Metadata, decode

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
    colours: Sequence[tuple[int, int, int]] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    activation: Activation | None = None,
    threshold: float | None = None,
    pixel_size: float | tuple[float, float] | None = None,
    percentiles: tuple[float, float] | None = None,
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
        colours: Red, green and blue of each label.
        mean: Mean of each channel in units of ``[0, 1]``; goes with ``std``, replaces
            ``normalize``.
        std: Standard deviation of each channel in units of ``[0, 1]``.
        activation: What turns the logits into probabilities.
        threshold: Probability above which a network of one output channel says 1.
        pixel_size: Size in micrometers of the pixels it was trained on: one number, or height and
            width.
        percentiles: Which percentiles of the image ``normalize="percentile"`` turns into 0 and 1.

    Raises:
        SettingError: A size is below 1, or none that the network takes; the number of classes is
            not that of the logits; or the metadata contradicts itself.
        MissingExtraError: Torch is not installed.
    """
    if min(in_channels, *(size or (1, 1)), 1 if batch is None else batch) < 1:
        raise SettingError(
            f"an export needs in_channels, size and batch >= 1; got {in_channels}, {size}, {batch}"
        )
    metadata = _metadata(
        classes=_tuple(classes),
        colours=_tuple(colours),
        normalize=normalize,
        mean=_tuple(mean),
        std=_tuple(std),
        activation=activation,
        threshold=threshold,
        pixel_size=pixel_size,
        percentiles=percentiles,
    )
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            "exporting a network needs Torch: pip install 'tile-infer[torch]'"
        ) from error
    import onnx

    _check_size(module, size)

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

    graph = onnx.load(str(path))
    if metadata.stated():
        onnx.helper.set_model_props(graph, {METADATA_KEY: metadata.encode()})
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _metadata(**said: Any) -> Metadata:
    try:
        # By way of JSON, where types and ranges are checked.
        return decode(Metadata(**said).encode(), "the metadata")
    except ValueError as error:
        raise SettingError(f"an export's metadata must hold together: {error}") from error


def _check_size(module: "nn.Module", size: tuple[int, int] | None) -> None:
    """Refuse a size at which the network would run, but with logits of another phase."""
    from .network import SegmentationNetwork

    if not isinstance(module, SegmentationNetwork):
        return
    for side in size or ():
        if not module.takes(side):
            smallest, period = module.smallest, module.period
            larger = smallest + max(0, -(-(side - smallest) // period)) * period
            raise SettingError(
                f"a tile of {side} px is none that the network takes; "
                f"use {smallest} + {period} k px, e.g. {larger}"
            )


def _example_size(module: "nn.Module") -> tuple[int, int]:
    from .network import SegmentationNetwork

    if not isinstance(module, SegmentationNetwork):
        return _EXAMPLE_PX, _EXAMPLE_PX
    # Unequal, so that no step can take one axis for the other.
    return module.smallest + module.period, module.smallest + 2 * module.period
