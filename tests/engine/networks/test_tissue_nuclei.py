import numpy as np
import pytest
from scipy import ndimage

from tile_infer.engine.networks.tissue import tissue
from tile_infer.engine.networks.tissue_nuclei import nuclei
from tile_infer.tiler.box import Box

REGION = Box.of(300, 900, -200, 600)


@pytest.mark.parametrize("region", [REGION, Box.of(-700, -300, -4000, -3700)])
def test_the_nuclei_together_are_the_truth(region: Box) -> None:
    found = nuclei(region, seed=5)
    assert np.array_equal(found > 0, tissue(region, seed=5).labels == 1)
    assert not np.array_equal(found > 0, tissue(region, seed=6).labels == 1)
    assert 0.02 < (found > 0).mean() < 0.6


def test_some_nuclei_touch_and_are_told_apart() -> None:
    found = nuclei(REGION, seed=5)
    joined = ndimage.label(found > 0)[1]
    assert len(np.unique(found)) - 1 > 1.1 * joined


def test_a_nucleus_is_one_across_blocks() -> None:
    whole = nuclei(REGION, seed=5)
    part = nuclei(Box.of(450, 750, -100, 200), seed=5)
    cut = whole[150:450, 100:400]
    pairs = np.unique(np.stack([cut.ravel(), part.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1] > 10
    # Nuclei are compact: one that lies on both sides of a block's border has one number there.
    borders = [
        (whole[211], whole[212]),
        (whole[:, 199], whole[:, 200]),
        (whole[:, 711], whole[:, 712]),
    ]
    before, after = (np.concatenate(sides) for sides in zip(*borders, strict=True))
    both = (before > 0) & (after > 0)
    assert both.sum() > 30
    assert (before == after)[both].mean() > 0.85
