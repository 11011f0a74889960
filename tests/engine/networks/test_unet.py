"""The paper's network: its numbers, its sizes, and what a wrong size does."""

import math

import pytest
import torch
from torch import nn

from tile_infer.engine.networks.registry import build
from tile_infer.engine.networks.unet import UNet
from tile_infer.tiler.errors import SettingError


def small(**settings: object) -> UNet:
    torch.manual_seed(0)
    return UNet(**{"width": 2, **settings}).eval()  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def outputs(network: UNet, size: int) -> tuple[int, ...]:
    with torch.inference_mode():
        return tuple(network(torch.zeros(1, 1, size, size)).shape)


def test_defaults_have_the_papers_convolutions_and_parameters() -> None:
    with torch.device("meta"):
        network = UNet()
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    assert sum(isinstance(layer, kinds) for layer in network.modules()) == 23
    assert sum(p.numel() for p in network.parameters()) == 31_030_658


def test_the_papers_tile_of_572_gives_388_at_full_width() -> None:
    with torch.device("meta"):
        network = UNet()
        logits = network(torch.zeros(1, 1, 572, 572))
    assert logits.shape == (1, 2, 388, 388)


def test_deepest_level_has_sixteen_times_the_channels() -> None:
    with torch.device("meta"):
        deepest = UNet().down[-1]
    assert [p.shape[0] for p in deepest.parameters() if p.ndim == 4] == [1024, 1024]


def test_sizes_of_the_paper_are_188_and_every_16_more() -> None:
    network = small()
    assert (network.smallest, network.period, network.margin) == (188, 16, 92)
    assert [size for size in range(180, 240) if network.takes(size)] == [188, 204, 220, 236]
    assert network.takes(572)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_smallest_size_runs_and_the_one_before_does_not(depth: int) -> None:
    network = small(depth=depth)
    left = network.smallest - 2 * network.margin
    assert outputs(network, network.smallest) == (1, 2, left, left)
    with pytest.raises(RuntimeError):
        outputs(network, network.smallest - network.period)


def test_same_padding_keeps_the_size() -> None:
    network = small(padding="same")
    assert (network.smallest, network.margin) == (16, 0)
    assert outputs(network, 64) == (1, 2, 64, 64)


def test_logits_move_with_the_image_by_16_but_not_by_12() -> None:
    network = small().double()
    image = torch.rand(1, 1, 300, 300, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(image[:, :, :284, :284])
        by_16 = network(image[:, :, 16:300, :284])
        by_12 = network(image[:, :, 12:296, :284])
    scale = float(whole.abs().max())
    assert float((whole[:, :, 16:] - by_16[:, :, :-16]).abs().max()) < 1e-12 * scale
    assert float((whole[:, :, 12:] - by_12[:, :, :-12]).abs().max()) > 1e-2 * scale


def test_an_invalid_size_runs_but_gives_other_logits() -> None:
    network = small().double()
    image = torch.rand(1, 1, 300, 300, dtype=torch.float64)
    with torch.inference_mode():
        right = network(image)  # 300 = 188 + 16 * 7
        wrong = network(image[:, :, :294, :294])
    assert not network.takes(294)
    height, width = wrong.shape[2:]
    assert float((right[:, :, :height, :width] - wrong).abs().max()) > 1e-2 * float(
        right.abs().max()
    )


def test_copied_features_lie_over_the_pixels_they_came_from() -> None:
    # With a level that copies and an upper path that gives nothing, the logit is the pixel itself.
    network = small(depth=1, width=1, classes=1)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.zeros_(layer.weight)
    for pair in (network.down[0], network.merge[0]):
        for layer in pair.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data[0, 0, 1, 1] = 1
    network.head.weight.data.fill_(1)
    image = torch.rand(1, 1, 30, 34)
    margin = network.margin
    with torch.inference_mode():
        assert torch.equal(network(image), image[:, :, margin:-margin, margin:-margin])


def test_weights_start_with_the_papers_deviation() -> None:
    torch.manual_seed(0)
    network = UNet(width=16)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 4000:
            kernel = 9 if isinstance(layer, nn.Conv2d) else 1
            expected = math.sqrt(2 / (kernel * layer.in_channels))
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)


def test_activations_keep_their_size_through_the_network() -> None:
    torch.manual_seed(0)
    network = UNet(width=16).eval()
    with torch.inference_mode():
        deviation = float(network(torch.randn(1, 1, 300, 300)).std())
    assert 0.1 < deviation < 10


def test_batch_norm_follows_every_3x3_convolution_when_asked_for() -> None:
    with torch.device("meta"):
        network, plain = UNet(batch_norm=True), UNet()
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == 18
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in plain.modules())


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}, {"padding": "reflect"}])
def test_impossible_settings_are_refused_with_the_value(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=str(next(iter(wrong.values())))):
        small(**wrong)


def test_the_wide_variant_has_35_to_560_channels() -> None:
    with torch.device("meta"):
        wide = build("unet_wide", in_channels=3, classes=1)
        narrow = UNet(in_channels=3, classes=1, width=32, padding="same")
    assert isinstance(wide, UNet)
    widths = [
        weights.shape[0] for name, weights in wide.down.named_parameters() if "0.weight" in name
    ]
    assert widths == [35, 70, 140, 280, 560]
    # The UNet++ papers' U-Net has 7.76 million.
    assert sum(p.numel() for p in narrow.parameters()) == 7_760_097
    assert sum(p.numel() for p in wide.parameters()) == 9_282_876


def test_dropout_ends_the_two_deepest_levels_of_the_contracting_path() -> None:
    network = small(depth=3, padding="same", dropout=0.5).train()
    dropped = []
    network.dropout.register_forward_hook(lambda _, got, gave: dropped.append((got[0], gave)))
    with torch.no_grad():
        network(torch.rand(1, 1, 32, 32))
    assert [gave.shape[1] for _, gave in dropped] == [8, 16]
    for got, gave in dropped:
        positive = got > 0
        assert 0.3 < float((gave[positive] == 0).float().mean()) < 0.7
        assert torch.equal(gave[gave > 0], 2 * got[gave > 0])


def test_dropout_is_for_training_only() -> None:
    network, image = small(depth=2, dropout=0.9), torch.rand(1, 1, 60, 60)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        network.train()
        assert not torch.equal(network(image), network(image))
