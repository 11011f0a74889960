from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.networks.unet import UNet
from tile_infer.engine.training.augmentation import Augmentation
from tile_infer.engine.training.images import Labelled, class_counts, weight_maps
from tile_infer.engine.training.objects import truth_of
from tile_infer.engine.training.tiles import TileSampler, TileShape
from tile_infer.engine.training.weight_map import WeightMap
from tile_infer.tiler.errors import ImageError, SettingError

SHAPE = TileShape(60, 10)
NOTHING = Augmentation.none()


def numbered(height: int, width: int) -> Labelled:
    """An image whose values tell their place, and whose labels tell the same of their pixel."""
    place = np.arange(height * width).reshape(height, width)
    classes = truth_of(place % 251, "class")
    return Labelled("numbered", place[..., None].astype(np.int32), classes, (0.0,), (1.0,))


def sampler(image: Labelled, augmentation: Augmentation, seed: int = 0) -> TileSampler:
    weights = image.pixels[..., 0].astype(np.float32)
    return TileSampler([image], [weights], SHAPE, augmentation, seed)


@pytest.mark.parametrize("size", [(100, 90), (41, 200), (7, 12), (1, 1)])
def test_a_tile_is_a_rectangle_of_the_mirror_extended_image(size: tuple[int, int]) -> None:
    image = numbered(*size)
    extended = np.pad(image.pixels[..., 0], 200, mode="reflect")
    made = sampler(image, replace(NOTHING, shift_px=5))
    corners = set()
    for step in range(20):
        tile = made.tile(step)
        first = tile.weights[0, 0]
        # The corner's pixel recurs in the mirrored part: any of its places will do.
        for y, x in np.argwhere(extended[:-100, :-100] == first):
            if min(y, x) < 10:
                continue
            if np.array_equal(extended[y : y + 40, x : x + 40], tile.weights):
                break
        else:
            pytest.fail("the weights are no rectangle of the image")
        whole = extended[y - 10 : y + 50, x - 10 : x + 50]
        assert np.array_equal(tile.image[0], whole)
        assert np.array_equal(tile.truth, tile.weights.astype(int) % 251)
        corners.add((int(y), int(x)))
    assert len(corners) > 1 or size == (1, 1)


@pytest.mark.parametrize(
    "augmentation",
    [
        replace(NOTHING, rotation="quarter", flip=True, shift_px=9),
        replace(NOTHING, rotation="free", flip=True, elastic_px=5.0),
    ],
)
def test_image_truth_and_weights_move_together(augmentation: Augmentation) -> None:
    y, x = np.mgrid[:150, :150]
    ramp = (y + 2 * x).astype(np.int32)  # a spline of any order keeps a ramp
    image = Labelled("ramp", ramp[..., None], truth_of(ramp // 20, "class"), (0.0,), (1.0,))
    made, rows, columns = (
        TileSampler([image], [values.astype(np.float32)], SHAPE, augmentation, 3)
        for values in (ramp, y, x)
    )
    inside = 0
    for step in range(60):
        tile = made.tile(step)
        seen = tile.image[0, 10:50, 10:50]
        places = np.stack([rows.tile(step).weights, columns.tile(step).weights])
        if places.min() < 12 or places.max() > 137:  # where it is mirrored, it is no ramp
            continue
        inside += 1
        # To the nearest pixel: half a pixel along y and along x is 1.5.
        assert np.abs(seen - tile.weights).max() <= 1.5 + 1e-3
        assert np.array_equal(tile.truth, tile.weights.astype(int) // 20)
    assert inside >= 5
    assert not augmentation.on_grid or np.array_equal(seen, tile.weights)


def test_labels_are_never_interpolated() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[:, 50:] = 7
    image = Labelled("two", labels[..., None], truth_of(labels, "class"), (0.0,), (1.0,))
    made = TileSampler([image], [labels.astype(np.float32)], SHAPE, Augmentation(), 0)
    for step in range(10):
        tile = made.tile(step)
        assert set(np.unique(tile.truth)) | set(np.unique(tile.weights)) <= {0, 7}
    assert len(np.unique(tile.image)) > 10


def test_a_step_gives_the_same_tile_whatever_was_drawn_before() -> None:
    image = numbered(100, 100)
    first = sampler(image, Augmentation())
    for step in range(5):
        first.batch(step, 2)
    again, other = sampler(image, Augmentation()), sampler(image, Augmentation(), seed=1)
    assert np.array_equal(first.batch(7, 2).image, again.batch(7, 2).image)
    assert not np.array_equal(first.batch(7, 2).image, other.batch(7, 2).image)
    batch = again.batch(7, 2).image
    assert batch.shape == (2, 1, 60, 60)
    assert not np.array_equal(batch[0], batch[1])


def test_large_images_are_drawn_more_often() -> None:
    large, small = numbered(300, 300), numbered(100, 100)
    white = replace(small, pixels=np.full_like(small.pixels, -1))
    maps = [np.zeros(image.shape, np.float32) for image in (large, white)]
    made = TileSampler([large, white], maps, SHAPE, NOTHING, 0)
    drawn = sum(bool((made.tile(step).image == -1).all()) for step in range(300))
    assert 15 <= drawn <= 48  # a tenth, with 3.5 standard deviations


def test_grey_values_vary_about_their_mean_by_no_more_than_asked() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (3, 40, 40)).astype(np.float32)
    augmentation = replace(NOTHING, contrast=0.2, brightness=0.1)
    gains = []
    for seed in range(100):
        varied = augmentation.varied(image, np.random.default_rng(seed))
        gains.append(varied[0].std() / image[0].std())
        shift = (varied.mean((1, 2)) - image.mean((1, 2))) / image.std()
        assert np.abs(shift).max() <= 0.1 + 1e-5
        assert np.ptp(shift) < 1e-5, "all channels alike"
    assert 1 / 1.2 - 1e-5 <= min(gains) < 0.9
    assert 1.1 < max(gains) <= 1.2 + 1e-5
    colour = replace(NOTHING, colour=0.1).varied(image, np.random.default_rng(0))
    assert np.ptp(colour.mean((1, 2)) - image.mean((1, 2))) > 1e-3
    assert np.array_equal(NOTHING.varied(image, np.random.default_rng(0)), image)


def test_the_tile_is_the_largest_that_the_network_takes() -> None:
    network = UNet(width=1)
    assert TileShape.largest(network, 572) == TileShape(572, 92)
    assert TileShape.largest(network, 587) == TileShape(572, 92)
    assert TileShape.largest(network, 188).output_px == 4
    assert TileShape.largest(UNet(width=1, padding="same"), 100) == TileShape(96, 0)
    with pytest.raises(SettingError, match=r"tile=187 .* use 188 or more"):
        TileShape.largest(network, 187)


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ImageError, match=r"a\.png has 5 x 6 px and its labels 6 x 5"):
        Labelled("a.png", np.zeros((5, 6, 1)), truth_of(np.zeros((6, 5), int), "class"), (0,), (1,))


def image_of(classes: list[int]) -> Labelled:
    labels = np.array([classes])
    pixels: NDArray[np.uint8] = np.zeros((1, len(classes), 1), np.uint8)
    return Labelled("row", pixels, truth_of(labels, "class"), (0.0,), (1.0,))


def test_a_class_that_no_image_shows_is_refused() -> None:
    images = [image_of([0, 0, 2]), image_of([2, 0, 0])]
    with pytest.raises(SettingError, match=r"class 1 \(wall\) is missing in all 2 label images"):
        class_counts(images, ("ground", "wall", "roof"))
    with pytest.raises(SettingError, match="classes 0 to 2, and 2 names"):
        class_counts(images, ("ground", "wall"))
    images.append(image_of([1]))
    assert class_counts(images, ("ground", "wall", "roof")) == (4, 1, 2)


def test_class_weights_are_those_of_all_images_together() -> None:
    images = [image_of([0] * 9), image_of([0, 0, 1])]
    first, second = weight_maps(images, class_counts(images, ("a", "b")), WeightMap())
    assert np.allclose(first, 12 / 11 / 2)
    assert np.allclose(second, [[12 / 11 / 2, 12 / 11 / 2, 6]])


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_an_impossible_variation_is_refused(wrong: float) -> None:
    with pytest.raises(SettingError, match="elastic_px="):
        Augmentation(elastic_px=wrong)
