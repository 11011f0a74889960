"""nnU-Net's predictor with a network that is not its own, over the whole image in memory."""

import numpy as np
import tifffile
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from counted import Counted
from one_run import Done, Job, run


def segment(job: Job) -> Done:
    """Segment into a NumPy file."""
    network = Counted(job.network)
    plans = PlansManager(
        {
            "label_manager": "LabelManager",
            # The predictor does not build the network, but asks for a description of one.
            "configurations": {"2d": {"patch_size": [job.tile, job.tile], "architecture": {}}},
        }
    )
    predictor = nnUNetPredictor(
        use_mirroring=job.mirrored, device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.manual_initialization(
        network,
        plans,
        plans.get_configuration("2d"),
        parameters=None,
        dataset_json={"labels": {"background": 0, "nucleus": 1}},
        trainer_name="none",
        inference_allowed_mirroring_axes=(0, 1),
    )
    # (channel, z, y, x): a picture is a stack of one plane.
    image = torch.from_numpy(tifffile.imread(job.image)).permute(2, 0, 1)[:, None].float() / 255
    logits = predictor.predict_sliding_window_return_logits(image)
    labels = predictor.label_manager.convert_logits_to_segmentation(logits)
    out = job.out.with_suffix(".npy")
    np.save(out, np.asarray(labels[0], np.uint8))
    return Done(out, network.input_px)


if __name__ == "__main__":
    run(segment, "nnunetv2", "numpy", "tifffile")
