"""The synthetic slide: the same from every side, and not to be had with a threshold."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.networks.plane import BLOCK_PX, Block, Plane
from tile_infer.engine.networks.tissue import DEMO_SEED, Tissue, tissue, write_slide
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import SettingError


@pytest.fixture(scope="module")
def slide() -> Tissue:
    return tissue((1024, 1024), seed=11)


def best_threshold_dice(grey: NDArray[np.floating], truth: NDArray[np.uint8]) -> float:
    """Return the Dice of ``grey < t`` for the one ``t`` that suits the truth best."""
    inside = np.histogram(grey[truth == 1], bins=256, range=(0, 256))[0].cumsum()
    outside = np.histogram(grey[truth == 0], bins=256, range=(0, 256))[0].cumsum()
    return float((2 * inside / (inside + outside + truth.sum())).max())


def test_the_same_seed_gives_the_same_slide_and_another_another() -> None:
    first, again, other = (tissue((300, 300), seed) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert (first.labels != other.labels).mean() > 0.05


@pytest.mark.parametrize(
    ("y0", "y1", "x0", "x1"), [(0, 1, 0, 1), (500, 530, 100, 1000), (511, 513, 511, 513)]
)
def test_a_rectangle_is_the_same_alone_as_within_a_larger_one(
    slide: Tissue, y0: int, y1: int, x0: int, x1: int
) -> None:
    box = Box.of(y0, y1, x0, x1)
    part = tissue(box, seed=11)
    assert np.array_equal(part.image, slide.image[box.slices])
    assert np.array_equal(part.labels, slide.labels[box.slices])


def test_the_plane_goes_on_to_the_left_of_its_origin_and_far_away() -> None:
    across = tissue(Box.of(-40, 40, -40, 40), seed=11)
    assert np.array_equal(across.image[40:, 40:], tissue((40, 40), seed=11).image)
    far = tissue(Box.of(200_000, 200_512, -300_288, -299_776), seed=11)
    assert far.image.std() > 10


def test_blocks_meet_without_a_seam(slide: Tissue) -> None:
    # A seam would make the step over a block's border larger than its neighbours' steps.
    rows = slide.image.astype(np.int64)
    steps = np.abs(np.diff(rows, axis=0)).mean(axis=(1, 2))
    border = steps[BLOCK_PX - 1]
    assert border < steps[BLOCK_PX - 9 : BLOCK_PX + 8].max() * 1.01
    shifted = np.abs(rows[BLOCK_PX] - np.roll(rows[BLOCK_PX - 1], 3, axis=0)).mean()
    assert shifted > 2 * border


def test_labels_meet_without_a_seam(slide: Tissue) -> None:
    changes = np.abs(np.diff(slide.labels.astype(np.int64), axis=1)).mean(axis=0)
    assert changes[BLOCK_PX - 1] < changes[BLOCK_PX - 40 : BLOCK_PX + 40].max() * 1.01


@pytest.mark.parametrize("seed", [12, DEMO_SEED])
def test_nuclei_cover_a_plausible_part(seed: int) -> None:
    made = tissue((1024, 1024), seed)
    assert set(np.unique(made.labels)) == {0, 1}
    assert 0.05 < made.labels.mean() < 0.40


def test_a_threshold_does_badly_even_if_chosen_with_the_truth(slide: Tissue) -> None:
    red = slide.image[..., 0].astype(np.float64)
    assert 0.3 < best_threshold_dice(red, slide.labels) < 0.85
    assert best_threshold_dice(slide.image.mean(axis=2), slide.labels) < 0.80


def test_the_threshold_measure_finds_a_perfect_threshold(slide: Tissue) -> None:
    assert best_threshold_dice(200.0 - 100 * slide.labels, slide.labels) == 1.0


def test_dark_pixels_are_in_part_no_nuclei(slide: Tissue) -> None:
    blackest = slide.image.max(axis=2) < 70  # pigment; no stain makes blue this dark
    assert blackest.sum() > 200
    assert slide.labels[blackest].mean() < 0.2


def test_noise_of_a_block_is_the_noise_of_its_points() -> None:
    plane = Plane(5)
    block = Block(plane, -512, 1024)
    y, x = np.array([-512.0, -300, -1]), np.array([1024.0, 1300, 1535])
    picked = block.noise(9, 37.0)[(y + 512).astype(int), (x - 1024).astype(int)]
    np.testing.assert_allclose(picked, plane.noise(9, 37.0, y, x), atol=1e-5)


def test_uniform_numbers_fill_their_range_evenly() -> None:
    j, i = np.meshgrid(np.arange(-200.0, 200), np.arange(-200.0, 200), indexing="ij")
    numbers = Plane(1).uniform(3, j, i)
    share, _ = np.histogram(numbers, bins=10, range=(0, 1))
    np.testing.assert_allclose(share / numbers.size, 0.1, atol=0.004)
    beside = np.corrcoef(numbers[:, 1:].ravel(), numbers[:, :-1].ravel())[0, 1]
    assert abs(beside) < 0.01


def test_a_written_slide_is_the_tissue_after_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "slide.tif"
    labels = write_slide(path, (700, 333), seed=11)
    made = tissue((700, 333), seed=11)
    assert np.array_equal(labels, made.labels)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        read = page.asarray()
        assert (page.tile, page.compression.name) == ((256, 256), "JPEG")
        # Resolution unit 3 is the centimetre: 20,000 px to it are 0.5 um to the pixel.
        assert page.tags["XResolution"].value == (20_000, 1)
        assert page.tags["ResolutionUnit"].value == 3
    assert read.shape == (700, 333, 3)
    assert 0 < np.abs(read.astype(int) - made.image).mean() < 5


def test_labels_are_written_into_the_array_given(tmp_path: Path) -> None:
    labels = np.full((300, 200), 9, np.uint8)
    assert write_slide(tmp_path / "slide.tif", (300, 200), 11, labels) is labels
    assert set(np.unique(labels)) <= {0, 1}


def test_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"\(300, 200\), got \(200, 300\)"):
        write_slide(tmp_path / "a.tif", (300, 200), 11, np.zeros((200, 300), np.uint8))


def test_an_empty_slide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="got 0 x 5"):
        write_slide(tmp_path / "a.tif", (0, 5))


def test_a_slide_needs_no_torch() -> None:
    modules = "tile_infer.engine.networks.tissue, tile_infer.engine.networks.export"
    check = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
