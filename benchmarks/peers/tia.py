"""TIAToolbox's semantic segmentor with a network that is not its own."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # Built for CUDA, it does not load its operators beside the CPU's Torch, and then fails for want
    # of two names. Nothing here calls the operators.
    for name in ("nms", "qnms"):
        signature = "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{name}", signature)

from tiatoolbox.models.engine.io_config import IOSegmentorConfig
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.models.models_abc import ModelABC

from counted import Counted
from one_run import Done, Job, run

FULL_SIZE = [{"units": "baseline", "resolution": 1.0}]


class Model(ModelABC):  # type: ignore[misc]  # its class is not typed
    """The network, as TIAToolbox wants it."""

    def __init__(self, network: Counted) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(batch, class, y, x)``."""
        logits: torch.Tensor = self.network(images)
        return logits

    @staticmethod
    def infer_batch(
        model: torch.nn.Module, batch_data: torch.Tensor, *, device: str
    ) -> NDArray[np.float32]:
        """Return the probabilities, with the classes last as the channels are."""
        images = batch_data.to(device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            found: NDArray[np.float32] = model(images).softmax(1).permute(0, 2, 3, 1).numpy()
        return found

    @staticmethod
    def postproc(image: Any) -> Any:
        """Return the labels of probabilities."""
        return image.argmax(axis=-1)


def segment(job: Job) -> Done:
    """Segment into the toolbox's own Zarr."""
    network = Counted(job.network)
    chosen = {} if job.batch is None else {"batch_size": job.batch}
    segmentor = SemanticSegmentor(Model(network), verbose=False, **chosen)
    ioconfig = IOSegmentorConfig(
        input_resolutions=FULL_SIZE,
        output_resolutions=FULL_SIZE,
        patch_input_shape=(job.tile, job.tile),
        patch_output_shape=(job.core, job.core),
        stride_shape=(job.core, job.core),
    )
    written = segmentor.run(
        [job.image],
        ioconfig=ioconfig,
        patch_mode=False,
        auto_get_mask=False,
        save_dir=job.out,
        output_type="zarr",
    )
    (out,) = written.values()
    return Done(out, network.input_px, "predictions")


if __name__ == "__main__":
    run(segment, "tiatoolbox", "torchvision", "zarr", "numpy", "tifffile")
