import numpy as np
import pytest
import torch

from tile_infer.engine.measures import confusion_of, counts_of
from tile_infer.engine.networks.unet import UNet
from tile_infer.engine.training.images import Labelled
from tile_infer.engine.training.objects import truth_of
from tile_infer.engine.training.tiles import TileShape
from tile_infer.engine.training.validation import validate, validation_tile

CPU = torch.device("cpu")


def noise(height: int, width: int) -> Labelled:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (height, width, 1), np.uint8)
    truth = truth_of(random.integers(0, 3, (height, width)), "class")
    return Labelled("noise", pixels, truth, (127.0,), (1 / 50,))


@pytest.mark.parametrize("tile", [60, 76, 140])
def test_measures_are_those_of_one_whole_pass(tile: int) -> None:
    torch.manual_seed(0)
    network = UNet(classes=3, width=4, depth=1).eval()
    image = noise(50, 33)
    shape = TileShape.largest(network, tile)
    found = validate(network, [image], shape, network.period, CPU)
    margin = network.margin
    padded = np.pad(image.pixels[..., 0], margin + 2, mode="reflect")
    # Input sizes are even: one more pixel below and to the right where the image's side is odd.
    cut = padded[2 : 2 + 50 + 2 * margin, 2 : 2 + 34 + 2 * margin]
    values = (cut.astype(np.float32) - 127) / 50
    with torch.inference_mode():
        logits = network(torch.from_numpy(values)[None, None])[0, :, :50, :33]
    truth = image.truth.classes.astype(np.int64)
    loss = torch.nn.functional.cross_entropy(logits[None], torch.from_numpy(truth)[None])
    confusion = confusion_of(logits.argmax(0).numpy(), truth, 3)
    assert found.loss == pytest.approx(float(loss), rel=1e-4)
    assert found.dice == pytest.approx(np.mean([counts_of(confusion, k).dice for k in (1, 2)]))
    assert found.iou == pytest.approx(np.mean([counts_of(confusion, k).iou for k in (1, 2)]))
    assert found.pixel_error == pytest.approx((logits.argmax(0).numpy() != truth).mean())


def test_the_network_keeps_its_mode_and_several_images_count_by_their_pixels() -> None:
    network = UNet(classes=3, width=2, depth=1, dropout=0.9).train()
    large, small = noise(60, 60), noise(20, 20)
    shape = TileShape.largest(network, 76)
    one, two, both = (
        validate(network, images, shape, 2, CPU) for images in ([large], [small], [large, small])
    )
    assert network.training
    assert both.loss == pytest.approx((3600 * one.loss + 400 * two.loss) / 4000, rel=1e-5)


def test_a_zero_padded_tile_is_measured_without_its_spoilt_rim() -> None:
    torch.manual_seed(0)
    network = UNet(classes=3, width=4, depth=1, padding="same").eval()
    image = noise(90, 70)
    found = validate(network, [image], TileShape(128, 0), network.period, CPU)
    around_px = 40
    padded = np.pad(image.pixels[..., 0], around_px, mode="reflect")
    values = (padded.astype(np.float32) - 127) / 50
    with torch.inference_mode():
        logits = network(torch.from_numpy(values)[None, None])[0]
    inside = logits[:, around_px:-around_px, around_px:-around_px]
    truth = torch.from_numpy(image.truth.classes.astype(np.int64))
    loss = torch.nn.functional.cross_entropy(inside[None], truth[None])
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    # Tiles too small for a rim to be left out are not.
    small = validate(network, [image], TileShape(64, 0), network.period, CPU)
    assert small.loss != pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "asked", "expected"),
    [(50, 33, 188, 300), (512, 512, 188, 572), (5000, 90, 188, 572), (50, 33, 700, 700)],
)
def test_measuring_takes_tiles_of_which_more_than_the_margin_is_left(
    height: int, width: int, asked: int, expected: int
) -> None:
    found = validation_tile(UNet(width=2), [noise(height, width)], asked)
    assert found.input_px == expected
    assert found.output_px == expected - 184
