"""A Torch module that runs as a graph gives the mask of one whole pass of the module itself."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tile_infer import predict_large

from .seeded_networks import SeededUNet, rarest_share, seeded, textured, unit
from .whole_pass import assert_whole_pass, logit_error, whole_pass


def normalized(padding: int) -> SeededUNet:
    """Return a U-Net with batch normalisations that change what they are given."""
    network = seeded(2, padding, classes=3)
    torch.manual_seed(1)
    for pairs in (network.down, network.merge):
        for place, pair in enumerate(pairs):
            assert isinstance(pair, nn.Sequential)
            convolution, *rest = pair
            assert isinstance(convolution, nn.Conv2d)
            norm = nn.BatchNorm2d(convolution.out_channels)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            pairs[place] = nn.Sequential(convolution, norm, *rest)
    return network.eval()


@pytest.mark.parametrize("padding", [0, 1], ids=["valid", "same"])
@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "compiled"])
def test_the_mask_is_that_of_one_whole_pass_of_the_module(padding: int, compiled: bool) -> None:
    if compiled and not (shutil.which("g++") or shutil.which("c++")):
        pytest.skip("there is no C++ compiler")
    network, image = normalized(padding), textured(230, 310, seed=3)
    options: dict[str, Any] = {"compile": True} if compiled else {}
    found = predict_large(
        image[:, :, 0], network, output="logits", tile=(124, 124), workers=2, **options
    )
    assert found.plan.execution.form == ("compiled" if compiled else "graph")
    assert found.plan.grid.tiles > 4
    reference = whole_pass(network, unit(image), network.shape)
    assert rarest_share(reference) >= 0.05
    assert_whole_pass(found.logits, found, reference)
    assert found.logits is not None
    assert logit_error(np.asarray(found.logits), reference) > 0
