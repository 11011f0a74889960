"""The FCNs: a classifier made convolutional, fused skips, three ways back."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tile_infer.engine.networks.fcn import FCN
from tile_infer.engine.networks.registry import build
from tile_infer.engine.networks.upsampling import WAYS, Transposed, unpool
from tile_infer.engine.networks.vgg import Backbone, Classifier, as_convolution
from tile_infer.tiler.errors import SettingError

NAMES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def small(name: str = "fcn8s", **options: Any) -> FCN:
    torch.manual_seed(0)
    network = build(name, **{"in_channels": 1, "width": 2, **options}).eval()
    assert isinstance(network, FCN)
    return network


def start_anew(module: nn.Module) -> None:
    """Draw all weights, which may be zeros."""
    for weights in module.parameters():
        nn.init.normal_(weights)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_backbone_has_the_14_714_688_parameters_of_vgg16() -> None:
    with torch.device("meta"):
        assert parameters(Backbone(3, 64)) == 14_714_688


def test_the_classifier_has_the_138_million_parameters_of_vgg16() -> None:
    with torch.device("meta"):
        assert parameters(Classifier()) == 138_357_544


@pytest.mark.parametrize(
    ("name", "back"),
    [
        # A kernel per class: 64 x 64; 4 x 4 and 32 x 32; 4 x 4 twice and 16 x 16. And the skips.
        ("fcn32s", 21 * 64 * 64),
        ("fcn16s", 21 * (4 * 4 + 32 * 32) + 21 * 513),
        ("fcn8s", 21 * (2 * 4 * 4 + 16 * 16) + 21 * 513 + 21 * 257),
    ],
)
def test_the_papers_networks_have_134_million_parameters(name: str, back: int) -> None:
    # fc6 of 7 x 7 x 512 inputs, fc7, and 21 classes.
    classifier = 4096 * (49 * 512 + 1) + 4096 * 4097 + 21 * 4097
    with torch.device("meta"):
        found = parameters(build(name, classes=21))
    assert found == 14_714_688 + classifier + back
    assert round(found / 1e6) == 134


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS)
def test_a_full_size_map_comes_back_each_way(name: str, way: str) -> None:
    with torch.device("meta"):
        network = build(name, classes=21, way=way)
        assert network(torch.zeros(1, 3, 224, 256)).shape == (1, 21, 224, 256)


def test_a_fully_connected_layer_and_its_1x1_convolution_agree() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 5).double()
    values = torch.randn(3, 32, 4, 6, dtype=torch.float64)
    found = as_convolution(layer).double()(values)
    expected = layer(values.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert float((found - expected).detach().abs().max()) < 1e-6


def test_a_layer_over_7x7_and_its_7x7_convolution_agree_at_every_place() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4 * 49, 5)
    values = torch.randn(2, 4, 9, 8)
    with torch.no_grad():
        found = as_convolution(layer, 7)(values)
        assert found.shape == (2, 5, 3, 2)
        for y in range(3):
            for x in range(2):
                expected = layer(values[:, :, y : y + 7, x : x + 7].flatten(1))
                assert torch.allclose(found[:, :, y, x], expected, atol=1e-6)
                assert not torch.allclose(found[:, :, 2 - y, 1 - x], expected, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_an_adopted_classifiers_answer_stands_in_the_middle_of_the_scores(name: str) -> None:
    torch.manual_seed(0)
    classifier = Classifier(in_channels=1, classes=3, width=2).eval()
    network, image = small(name, classes=3), torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        answer = classifier(image)[0]
        before = network.coarse(network.backbone(image)[1][-1])[0, :, 3, 3]
        network.adopt(classifier)
        scores = network.coarse(network.backbone(image)[1][-1])[0]
    assert scores.shape == (3, 7, 7)
    assert torch.allclose(scores[:, 3, 3], answer, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before, answer, rtol=1e-2, atol=1e-3)
    assert not torch.allclose(scores[:, 0, 0], answer, rtol=1e-2, atol=1e-3)


def test_a_classifier_of_other_classes_gives_all_but_its_last_layer() -> None:
    network = small(classes=2)
    classifier = Classifier(in_channels=1, classes=10, width=2)
    score = network.score.weight.clone()
    network.adopt(classifier)
    assert torch.equal(network.fc7.weight.flatten(1), classifier.fc7.weight)
    assert torch.equal(network.score.weight, score)
    with pytest.raises(SettingError, match="needs the width"):
        network.adopt(Classifier(in_channels=1, width=3))


def test_the_transposed_convolution_starts_as_bilinear_resizing() -> None:
    for steps in (1, 3, 5):
        way = Transposed(2, [1] * steps).eval()
        way.start()
        scores = torch.randn(1, 2, 7, 6)
        with torch.no_grad():
            found = way(scores, [])
        factor = 2**steps
        resized = functional.interpolate(
            scores, scale_factor=factor, mode="bilinear", align_corners=False
        )
        inside = slice(factor, -factor)  # outside are zeros here, the edge's values there
        assert torch.allclose(found[:, :, inside, inside], resized[:, :, inside, inside], atol=1e-6)
        assert not torch.allclose(found, resized, atol=1e-2)


@pytest.mark.parametrize("ties", [False, True])
def test_unpooling_is_that_of_the_pooling_indices(ties: bool) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 10, 14)
    if ties:  # as after ReLU
        features = features.clamp(min=0) * (torch.rand(2, 3, 10, 14) > 0.5)
    pooled, indices = functional.max_pool2d(features, 2, return_indices=True)
    values = torch.randn_like(pooled)
    expected = functional.max_unpool2d(values, indices, [2, 2])
    assert torch.equal(unpool(values, features), expected)
    assert not torch.equal(unpool(values, features.flip(3)), expected)


@pytest.mark.parametrize("name", ["fcn16s", "fcn8s"])
def test_a_finer_network_starts_with_the_coarsest_scores_alone(name: str) -> None:
    network, image = small(name), torch.rand(1, 1, 96, 128)
    with torch.no_grad():
        scores = network.coarse(network.backbone(image)[1][-1])
        for rise in network.rises:
            scores = rise(scores, [])
        assert torch.equal(network(image), scores)
        start_anew(network.skips)
        assert not torch.allclose(network(image), scores, atol=1e-2)


@pytest.mark.parametrize(("name", "stages"), [("fcn32s", []), ("fcn16s", [3]), ("fcn8s", [3, 2])])
def test_skips_come_from_pool4_and_pool3(name: str, stages: list[int]) -> None:
    network = small(name)
    with torch.no_grad():
        start_anew(network.skips)
        # With no scores from below, only what the skips see can tell.
        network.score.weight.zero_()
        before = network(torch.rand(1, 1, 64, 64))
    assert bool(before.any()) == bool(stages)
    widths = [2, 4, 8, 16, 16]
    assert [skip.in_channels for skip in network.skips] == [widths[stage] for stage in stages]


@pytest.mark.parametrize("wrong", [{"width": 0}, {"stride": 4}, {"way": "magic"}, {"dropout": 1.0}])
def test_impossible_settings_are_refused_with_the_value(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=str(next(iter(wrong.values())))):
        small(**wrong)


def test_batch_norm_follows_every_3x3_convolution_when_asked_for() -> None:
    network = small(batch_norm=True)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == 13
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in small().modules())
