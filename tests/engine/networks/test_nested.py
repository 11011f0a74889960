"""The nested networks: their nodes, their heads, and what pruning leaves."""

import pytest
import torch
from torch import Tensor, nn

from tile_infer.engine.networks.nested import NestedUNet
from tile_infer.engine.networks.registry import build
from tile_infer.engine.networks.unet import UNet
from tile_infer.tiler.errors import SettingError

NAMES = ("unetpp", "unetp", "unete")


def small(name: str, **options: object) -> NestedUNet:
    torch.manual_seed(0)
    network = build(name, **{"in_channels": 1, "width": 2, **options}).eval()
    assert isinstance(network, NestedUNet)
    return network


def first(network: NestedUNet, key: str) -> nn.Conv2d:
    """Return the first convolution of a node."""
    node = network.nodes[key]
    assert isinstance(node, nn.Sequential)
    assert isinstance(node[0], nn.Conv2d)
    return node[0]


def parameters(name: str, **options: object) -> int:
    with torch.device("meta"):
        network = build(name, **{"in_channels": 3, "classes": 1, **options})
    return sum(p.numel() for p in network.parameters())


def node_parameters(before: int, after: int) -> int:
    """Weights and biases of two 3x3 convolutions."""
    return 9 * before * after + after + 9 * after * after + after


def by_hand(seen: int, classes: int = 1) -> int:
    """Parameters with 32 to 512 channels and 3 inputs.

    ``seen`` is 0 where a node sees all nodes before it in its row, else how many it sees.
    """
    widths = [32, 64, 128, 256, 512]
    total = sum(node_parameters(b, a) for b, a in zip([3, *widths], widths, strict=False))
    for column in range(1, 5):
        for level in range(5 - column):
            own = widths[level]
            total += node_parameters(own * (1 + (seen or column)), own)
            total += 2 * own * own * 4 + own  # 2x2 up-convolution from twice the channels
    return total + 4 * (32 * classes + classes)


def test_unetpp_has_the_9_04_million_parameters_of_the_paper() -> None:
    assert parameters("unetpp") == by_hand(0) == 9_042_276
    assert parameters("unetpp", deep_supervision=False) == 9_042_177


@pytest.mark.parametrize("name", ["unetp", "unete"])
def test_the_ablations_see_one_node_of_their_row(name: str) -> None:
    assert parameters(name) == by_hand(1) == 8_728_932


def test_pruned_unetpp_has_the_papers_0_1_0_5_2_2_and_9_0_million_parameters() -> None:
    with torch.device("meta"):
        network = build("unetpp", in_channels=3, classes=1)
        found = [
            sum(p.numel() for p in network.pruned(level).parameters()) for level in (1, 2, 3, 4)
        ]
    assert found == [101_537, 511_681, 2_205_537, 9_042_177]


@pytest.mark.parametrize("name", NAMES)
def test_channels_double_from_32_to_512_and_the_size_stays(name: str) -> None:
    with torch.device("meta"):
        network = build(name, in_channels=3)
        assert isinstance(network, NestedUNet)
        assert [first(network, f"{level}_0").out_channels for level in range(5)] == [
            32,
            64,
            128,
            256,
            512,
        ]
        heads = network.heads(torch.zeros(2, 3, 96, 112))
    assert [head.shape for head in heads] == [(2, 2, 96, 112)] * 4


@pytest.mark.parametrize(
    ("name", "inputs"), [("unetpp", [4, 6, 8, 10]), ("unetp", [4] * 4), ("unete", [4] * 4)]
)
def test_what_enters_the_nodes_of_the_first_row(name: str, inputs: list[int]) -> None:
    network = small(name)
    assert [first(network, f"0_{j}").in_channels for j in (1, 2, 3, 4)] == inputs


def test_unetp_sees_its_neighbour_and_unete_the_encoder() -> None:
    image = torch.rand(1, 1, 32, 32)
    for name, source in (("unetp", "0_1"), ("unete", "0_0")):
        network = small(name, depth=2)
        before = network.heads(image)[-1]
        with torch.no_grad():
            # The skip's half of the inputs of X(0, 2): without it, its source tells nothing more.
            first(network, "0_2").weight[:, :2] = 0
        cut = network.heads(image)[-1]
        with torch.no_grad():
            first(network, "0_1").weight.mul_(2)
        changed = network.heads(image)[-1]
        assert not torch.equal(before, cut)
        assert torch.equal(cut, changed), source
    network = small("unetp", depth=2)
    before = network.heads(image)[-1]
    with torch.no_grad():
        first(network, "0_1").weight.mul_(2)
    assert not torch.equal(before, network.heads(image)[-1])
    network = small("unete", depth=2)
    before = network.heads(image)[-1]
    with torch.no_grad():
        first(network, "0_1").weight.mul_(2)
    assert torch.equal(before, network.heads(image)[-1])


def test_the_deepest_of_unete_is_a_unet() -> None:
    network, unet = small("unete", width=4), UNet(1, 2, width=4, padding="same").eval()
    state: dict[str, Tensor] = {}
    for level in range(5):
        state |= {
            f"down.{level}.{k}": v for k, v in network.nodes[f"{level}_0"].state_dict().items()
        }
    for level in range(4):
        key = f"{level}_{4 - level}"
        state |= {f"merge.{3 - level}.{k}": v for k, v in network.nodes[key].state_dict().items()}
        state |= {f"up.{3 - level}.{k}": v for k, v in network.up[key].state_dict().items()}
    state |= {f"head.{k}": v for k, v in network.ends["4"].state_dict().items()}
    unet.load_state_dict(state)
    image = torch.rand(1, 1, 48, 64)
    with torch.inference_mode():
        assert torch.equal(unet(image), network.heads(image)[-1])


@pytest.mark.parametrize("name", NAMES)
def test_accurate_mode_is_the_mean_of_the_heads(name: str) -> None:
    network, image = small(name).double(), torch.rand(1, 1, 48, 64, dtype=torch.float64)
    with torch.inference_mode():
        heads = network.heads(image)
        mean = sum(heads[1:], heads[0]) / 4
        assert float((network(image) - mean).abs().max()) < 1e-12 * float(mean.abs().max())
    assert not torch.equal(heads[0], heads[3])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_pruned_network_gives_what_that_head_of_the_full_one_gives(name: str, level: int) -> None:
    network, image = small(name), torch.rand(2, 1, 48, 64)
    pruned = network.pruned(level)
    with torch.inference_mode():
        heads = network.heads(image)
        assert torch.equal(pruned(image), heads[level - 1])
        assert not torch.equal(pruned(image), heads[level % 4])
    assert (pruned.period, pruned.smallest) == (2**level, 2**level)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("unetpp", {"0_0", "1_0", "2_0", "0_1", "1_1", "0_2"}),
        ("unetp", {"0_0", "1_0", "2_0", "0_1", "1_1", "0_2"}),
        ("unete", {"0_0", "1_0", "2_0", "1_1", "0_2"}),  # X(0, 1) serves its own head only
    ],
)
def test_a_pruned_network_has_only_the_nodes_that_its_head_needs(
    name: str, nodes: set[str]
) -> None:
    pruned = small(name).pruned(2)
    assert set(pruned.nodes) == nodes
    assert set(pruned.ends) == {"2"}
    # Each of them tells in the output: none could be dropped as well.
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        before = pruned(image)
        for key in nodes:
            weights = first(pruned, key).weight
            weights.mul_(2)
            assert not torch.equal(pruned(image), before), key
            weights.div_(2)


def test_a_pruned_network_can_be_built_again_from_its_options() -> None:
    network = small("unetp", batch_norm=True)
    pruned = network.pruned(3)
    again = build("unetp", **network.pruned_options(3)).eval()
    again.load_state_dict(pruned.state_dict())
    image = torch.rand(1, 1, 48, 48)
    with torch.inference_mode():
        assert torch.equal(again(image), pruned(image))


def test_pruning_leaves_the_full_network_as_it_was() -> None:
    network, image = small("unetpp"), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        before = network(image)
        for weights in network.pruned(2).parameters():
            weights.zero_()
        assert torch.equal(network(image), before)


def test_a_head_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingError, match="prune=L5 is not possible; this network has L1, L2"):
        small("unetpp").pruned(5)
    with pytest.raises(SettingError, match="this network has L4"):
        small("unetpp", deep_supervision=False).pruned(2)
    with pytest.raises(SettingError, match="UNet has one head"):
        build("unet", width=2).pruned(2)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}, {"skips": "long"}, {"classes": 0}])
def test_impossible_settings_are_refused_with_the_value(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=str(next(iter(wrong.values())))):
        small("unetpp", **wrong)
