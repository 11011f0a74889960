"""Segment images of any size with the mask of one whole pass.

>>> import numpy, torch, tile_infer
>>> network = torch.nn.Conv2d(1, 2, 3)
>>> prediction = tile_infer.predict_large(numpy.zeros((300, 200), "uint8"), network)
>>> prediction.mask.shape
(300, 200)
"""

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, Unpack

from .engine.conduct import Conduct
from .engine.part import Part
from .engine.pipeline import Progress
from .engine.plan import Plan
from .engine.prediction import Prediction
from .engine.probe import Probe
from .engine.settings import Options, Settings
from .tiler.errors import (
    DeviceError,
    ImageError,
    ModelError,
    OutputError,
    SettingError,
    TileInferError,
    TileInferWarning,
)

if TYPE_CHECKING:
    from .engine.crew import Crew

__all__ = [
    "DeviceError",
    "ImageError",
    "ModelError",
    "OutputError",
    "Plan",
    "Prediction",
    "Probe",
    "Progress",
    "SettingError",
    "TileInferError",
    "TileInferWarning",
    "__version__",
    "inspect_network",
    "plan_prediction",
    "predict_large",
]

__version__ = version("tile-infer")


def predict_large(
    image: Any,
    model: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    part: str | None = None,
    client: Any = None,
    resources: Mapping[str, float] | None = None,
    overwrite: bool = False,
    break_lock: bool = False,
    on_read_error: Literal["stop", "fill"] = "stop",
    on_nan: Literal["stop", "report"] = "stop",
    verify: float | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[Options],
) -> Prediction:
    """Segment an image of any size with the mask of one whole pass.

    The same call continues a run that was stopped, and returns at once where the mask is complete.

    Args:
        image: Path or URL (``s3://``, ``gs://``, ``https://``) of a TIFF or Zarr, or a NumPy, Zarr
            or Dask array ``(y, x)`` or ``(y, x, channel)`` of any integer or floating type.
        model: Path of an ``.onnx`` file, or a ``torch.nn.Module``; with ``trust_model=True`` also
            path of a TorchScript or ``torch.export`` file.
        out: Folder of the mask, an OME-Zarr group, or its URL (``s3://``, ``gs://``). By default
            ``slide.unet.zarr`` beside ``slide.tif``; the mask of an array stays in memory.
        part: Compute one of n parts of the mask, ``"0/n"`` to ``"n-1/n"``. They may run at the same
            time in processes that see the same ``out``; the call without ``part`` then completes
            the mask.
        client: A ``distributed.Client``: the workers of its cluster compute the blocks. They open
            image, model and output themselves, under the paths given here; see docs/cluster.md.
        resources: What each block takes of the resources that those workers declare; by default
            ``{"GPU": 1}`` for a run on a GPU, where a worker declares any.
        overwrite: Start again where another mask is.
        break_lock: Take over an output that a process of another machine holds; it must have ended.
        on_read_error: What becomes of pixels that cannot be decoded: ``"fill"`` labels them as not
            computed and lists them in the report.
        on_nan: What becomes of pixels for which the network gives NaN or infinity: ``"report"``
            labels them as not computed and counts them.
        verify: Share of the mask that is computed again in other tiles and compared, in the report
            and the mask's attributes as ``certificate``; 0 for none. By default a thousandth, and
            one tile at least.
        on_plan: Called with the plan before the first tile is run.
        on_progress: Called with the progress, in this thread, after every block.
        **options: What ``Settings`` describes; ``None`` leaves it to the engine.

    Returns:
        The finished mask; of a part, the unfinished one, with a report of the part.

    Raises:
        SettingError: Options contradict each other, the image, the network or the memory.
        ImageError: The image cannot be read.
        ModelError: The network cannot be loaded, or is not one from an image to a map.
        DeviceError: A device or precision was asked for that cannot be had.
        OutputError: The output cannot be written, or belongs to another run.
        TileInferError: Any of these, and a network that returns NaN or infinity.

    >>> import numpy, torch
    >>> image = numpy.arange(12, dtype="uint8").reshape(3, 4)
    >>> prediction = predict_large(image, torch.nn.Identity(), normalize="none", activation="none",
    ...                            threshold=0.5)
    >>> numpy.asarray(prediction).tolist()
    [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    from .engine.predict import THREADS, predict

    crew: Crew = THREADS
    if client is not None:
        from .engine.cluster import Cluster

        crew = Cluster(client, resources)
    return predict(
        image,
        model,
        out,
        Settings(**options),
        Conduct(
            overwrite=overwrite,
            break_lock=break_lock,
            on_read_error=on_read_error,
            on_nan=on_nan,
            verify=verify,
        ),
        part=None if part is None else Part.of(part),
        crew=crew,
        on_plan=on_plan,
        on_progress=on_progress,
    )


def plan_prediction(image: Any, model: Any, **options: Unpack[Options]) -> Plan:
    """Return how ``predict_large`` would segment an image, without running it.

    Args:
        image: As for ``predict_large``.
        model: As for ``predict_large``.
        **options: As for ``predict_large``.

    Returns:
        The plan: tiles, blocks, chunks, memory, redundancy, normalisation.

    Raises:
        TileInferError: As for ``predict_large``.

    >>> import numpy, torch
    >>> plan_prediction(numpy.zeros((3000, 2000), "uint8"), torch.nn.Conv2d(1, 2, 3)).grid.blocks
    6
    """
    from .engine.planning import plan_image

    return plan_image(image, model, Settings(**options))


def inspect_network(
    model: Any,
    *,
    head: str | None = None,
    channels: int | None = None,
    tolerance: float | None = None,
    trust_model: bool = False,
) -> Probe:
    """Measure a network's tile sizes, margin, period and halo by running it on noise.

    Args:
        model: As for ``predict_large``.
        head: Name or index of the output to use; needed where there are several.
        channels: Input channels, for a network that does not say.
        tolerance: Error of the logits, as a share of the largest, that a halo may leave.
        trust_model: Whether a file may be opened that can run code.

    Returns:
        The geometry, and whether the network can be tiled exactly.

    Raises:
        ModelError: The network cannot be loaded, or is not one from an image to a map.

    >>> import torch
    >>> axis = inspect_network(torch.nn.Conv2d(1, 2, 3)).geometry.x
    >>> axis.margin_before, axis.period
    (1, 1)
    """
    from .engine.backends import open_network
    from .engine.inspection import inspect

    with closing(open_network(model, head, trust_model=trust_model)) as network:
        return inspect(network, Settings(tolerance=tolerance), channels)
