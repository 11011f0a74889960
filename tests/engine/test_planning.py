"""What is decided, is decided once, in the open, and survives JSON."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from tile_infer import ModelError, Plan, SettingError, plan_prediction
from tile_infer.engine import sizing
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.unet import UNet
from tile_infer.engine.plan import network_summary


def blank(*shape: int, dtype: str = "uint8") -> NDArray[np.generic]:
    return np.zeros(shape, dtype)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("networks") / "unet.onnx"
    export_onnx(UNet(in_channels=1, classes=2, width=2), path, in_channels=1)
    return path


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "cpu_cores", lambda: 2)


def test_a_plan_survives_json(unet: Path) -> None:
    plan = plan_prediction(blank(700, 900), unet, channels=(0,), blend="hann", overlap=0.5)
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    assert replace(plan, batch=2).fingerprint != plan.fingerprint


def test_a_plan_of_another_version_is_refused(unet: Path) -> None:
    plain = plan_prediction(blank(30, 30), unet).to_dict()
    with pytest.raises(OSError, match="begun by another release"):
        Plan.from_dict({**plain, "version": 0})


def test_the_papers_network_is_planned_at_its_phase(unet: Path) -> None:
    plan = plan_prediction(blank(5000, 3000), unet, tile=(572, 1084))
    assert plan.exact
    assert plan.grid.core == (384, 896)
    assert plan.recipe.crop == (0, 0)
    assert plan.grid.tiles == 14 * 4
    assert {value % 16 for value in plan.grid.core} == {0}
    assert plan.redundancy == pytest.approx(1.4, abs=0.2)


def test_a_small_image_takes_a_small_tile(unet: Path) -> None:
    plan = plan_prediction(blank(1, 17), unet)
    assert plan.grid.tile == (204, 220)
    assert plan.grid.blocks == plan.grid.tiles == 1


def test_summary_keys_are_stable(unet: Path) -> None:
    plan = plan_prediction(blank(100, 200), unet)
    summary, network = plan.summary(), network_summary(plan.network, plan.probe)
    assert {
        "tile", "core", "chunk", "block", "tiles", "blocks", "redundancy", "memory_bytes",
        "output_bytes", "disk_bytes",
    } <= set(summary)  # fmt: skip
    assert {
        "input", "output", "margin", "period", "step", "halo", "verdict", "bounded", "free_size",
    } <= set(network)  # fmt: skip
    assert summary["shape"] == [100, 200]
    assert network["period"] == [16, 16]
    assert network["margin"] == {"before": [92, 92], "after": [92, 92]}
    json.dumps([summary, network])


@pytest.mark.usefixtures("two_cores")
def test_less_memory_means_fewer_workers_and_smaller_blocks_and_then_a_refusal(unet: Path) -> None:
    image = blank(9000, 9000)
    usual = plan_prediction(image, unet, tile=(700, 700), memory=4 << 30)
    assert (usual.workers, usual.grid.block) == (2, (2048, 2048))
    assert usual.memory_bytes <= 4 << 30
    tight = plan_prediction(image, unet, tile=(700, 700), memory=usual.memory_bytes - 1)
    assert tight.grid.block == (1024, 1024)
    tighter = plan_prediction(image, unet, tile=(700, 700), memory=tight.memory_bytes - 1)
    assert tighter.workers == 1
    assert tighter.memory_bytes < tight.memory_bytes
    with pytest.raises(SettingError, match=r"needs .* MB of memory and may use 95.4 MB"):
        plan_prediction(image, unet, tile=(700, 700), memory=100_000_000)
    # A tile that is left open is a smaller one instead.
    tightest = plan_prediction(image, unet, tile=(700, 700), memory=tighter.memory_bytes - 1)
    least = tightest.memory_bytes - 1
    with pytest.raises(SettingError, match="use a smaller tile"):
        plan_prediction(image, unet, tile=(700, 700), memory=least)
    smaller = plan_prediction(image, unet, memory=least)
    assert smaller.grid.tile < (700, 700)
    assert smaller.memory_bytes <= least


@pytest.mark.usefixtures("two_cores")
def test_an_image_of_few_blocks_has_small_ones_so_that_all_workers_are_busy(unet: Path) -> None:
    plan = plan_prediction(blank(2500, 2500), unet, memory=4 << 30)
    assert (plan.workers, plan.execution.threads, plan.grid.blocks) == (2, 1, 9)
    single = plan_prediction(blank(300, 300), unet, memory=4 << 30)
    assert (single.workers, single.grid.blocks) == (1, 1)


def test_memory_does_not_grow_with_the_image(unet: Path) -> None:
    large = plan_prediction(np.broadcast_to(np.uint8(0), (30720, 30720)), unet, memory=4 << 30)
    larger = plan_prediction(np.broadcast_to(np.uint8(0), (92160, 92160)), unet, memory=4 << 30)
    assert large.memory_bytes == larger.memory_bytes


def test_channels_are_checked_against_image_and_network() -> None:
    network = nn.Conv2d(3, 2, 3)
    with pytest.raises(SettingError, match=r"has 1 channels .* takes 3; choose .* channels=0,0,0"):
        plan_prediction(blank(50, 50), network)
    with pytest.raises(SettingError, match=r"has 4 channels .* takes 3; choose .* channels=0,1,2"):
        plan_prediction(blank(50, 50, 4), network)
    with pytest.raises(SettingError, match="has channels 0 to 3"):
        plan_prediction(blank(50, 50, 4), network, channels=(0, 1, 4))
    with pytest.raises(SettingError, match="are 2, but the network takes 3"):
        plan_prediction(blank(50, 50, 4), network, channels=(0, 1))
    assert plan_prediction(blank(50, 50, 4), network, channels=(3, 1, 1)).channels == (3, 1, 1)


def test_a_level_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        SettingError, match=r"level=1 is not in array; its levels: 0 \(50 x 60 px\)"
    ):
        plan_prediction(blank(50, 60), nn.Conv2d(1, 2, 3), level=1)


def test_a_halo_that_the_user_states_wins_and_costs_the_certificate() -> None:
    network = nn.Conv2d(1, 2, 9, padding=4)
    measured = plan_prediction(blank(99, 99), network)
    assert measured.exact
    assert measured.recipe.crop == (4, 4)
    stated = plan_prediction(blank(99, 99), network, halo=7)
    assert not stated.exact
    assert stated.recipe.crop == (7, 7)
    assert "measured were 4 + 4 px" in stated.warnings[0]


def test_a_tolerance_buys_a_smaller_halo_and_costs_exactness() -> None:
    network = nn.Conv2d(1, 2, 9, padding=4)
    with torch.no_grad():
        network.weight *= torch.tensor([1e-3] * 2 + [1.0] * 5 + [1e-3] * 2)
        network.weight *= torch.tensor([1e-3] * 2 + [1.0] * 5 + [1e-3] * 2)[:, None]
    plan = plan_prediction(blank(99, 99), network, tolerance=0.05)
    assert plan.probe.geometry.y.halo_before == 2
    assert not plan.exact
    assert "off by 0.05 of the largest" in " ".join(plan.notes)


def test_a_network_that_pools_its_whole_tile_is_blended_with_a_warning_that_says_so() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    plan = plan_prediction(blank(3000, 2000), network)
    assert not plan.exact
    assert plan.blend == "hann"
    assert plan.probe.verdict == "unbounded"
    (warning,) = plan.warnings
    assert "every pixel of a tile influences every other" in warning
    assert f"{plan.probe.disagreement:.2g} of the largest logit" in warning
    assert plan.grid.core[0] * 2 == plan.grid.window[0]
    smaller = plan_prediction(
        blank(3000, 2000), network, tile=(96, 96), blend="hann", overlap=2 / 3
    )
    assert (smaller.grid.window, smaller.grid.core) == ((96, 96), (32, 32))


def test_overlap_without_a_window_is_no_blend() -> None:
    plan = plan_prediction(
        blank(300, 300), nn.Conv2d(1, 2, 3), tile=(66, 66), blend="none", overlap=0.5
    )
    assert plan.grid.window == plan.grid.core == (32, 32)
    assert plan.recipe.crop == (16, 16)
    assert not plan.grid.blended
    assert not plan.exact


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(SettingError, match="no meaning for 2 classes"):
        plan_prediction(blank(50, 50), nn.Conv2d(1, 2, 3), threshold=0.3)
    with pytest.raises(SettingError, match="output=logits has no meaning"):
        plan_prediction(blank(50, 50), nn.Conv2d(1, 2, 3), blend="hann", output="logits")


def test_names_of_classes_come_from_the_model_where_they_fit() -> None:
    assert plan_prediction(blank(50, 50), nn.Conv2d(1, 3, 3)).class_names == (
        "class 0", "class 1", "class 2",
    )  # fmt: skip
    assert len(plan_prediction(blank(50, 50), nn.Conv2d(1, 1, 3)).class_names) == 2


def test_a_module_with_hooks_is_run_by_one_thread_at_a_time(two_cores: None) -> None:
    module = nn.Conv2d(1, 2, 3)
    plan = plan_prediction(blank(5000, 5000), module)
    assert (plan.workers, plan.execution.threads) == (2, 1)
    module.register_forward_hook(lambda *_: None)
    plan = plan_prediction(blank(5000, 5000), module)
    assert (plan.workers, plan.execution.threads) == (1, 2)


def test_the_activation_is_the_files_own() -> None:
    ends_in_sigmoid = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Sigmoid())
    choices: tuple[Literal["auto", "none", "sigmoid"] | None, ...] = (
        None,
        "auto",
        "none",
        "sigmoid",
    )
    for asked in choices:
        plan = plan_prediction(blank(50, 50), ends_in_sigmoid, activation=asked)
        assert plan.recipe.activation == "sigmoid"
    with pytest.raises(SettingError, match="ends in a sigmoid already"):
        plan_prediction(blank(50, 50), ends_in_sigmoid, activation="softmax")
    with pytest.raises(SettingError, match="1 everywhere"):
        plan_prediction(blank(50, 50), nn.Conv2d(1, 1, 3), activation="softmax")


@pytest.mark.parametrize(
    "options", [{"blend": "none"}, {"halo": 16}, {"tolerance": 0.01}, {"blend": "gaussian"}]
)
def test_nothing_asked_for_hides_that_a_network_cannot_be_tiled_exactly(
    options: dict[str, Any],
) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    plan = plan_prediction(blank(900, 900), network, **options)
    assert not plan.exact
    assert "every pixel of a tile influences every other" in " ".join(plan.warnings)


def test_lists_and_single_numbers_will_do() -> None:
    network = nn.Conv2d(3, 2, 3)
    listed = plan_prediction(blank(300, 300, 3), network, channels=[2, 1, 0], tile=200)  # type: ignore[arg-type]
    assert listed.channels == (2, 1, 0)
    assert listed.grid.tile == (200, 200)


def test_an_activation_that_the_graph_hides_is_not_applied_twice() -> None:
    class Hidden(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.inner = nn.Conv2d(1, classes, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            powers = self.inner(pixels).clamp(-30, 30).exp()
            total = powers.sum(dim=1, keepdim=True) if powers.shape[1] > 1 else 1 + powers
            result: torch.Tensor = powers / total
            return result

    for classes in (1, 3):
        plan = plan_prediction(blank(50, 50), Hidden(classes))
        assert plan.network.ends_in == "none"
        assert plan.recipe.activation == "none"
        assert "taken for probabilities" in " ".join(plan.notes)
        asked = plan_prediction(blank(50, 50), Hidden(classes), activation="sigmoid")
        assert asked.recipe.activation == "sigmoid"
    assert plan_prediction(blank(50, 50), nn.Conv2d(1, 1, 3)).recipe.activation == "sigmoid"


def test_a_network_is_probed_with_numbers_as_large_as_the_images() -> None:
    class Wakes(nn.Module):
        """Sees 9 px around, but only where a pixel is above 3000."""

        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 19, padding=9)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.near(pixels) + self.far((pixels - 3000).relu())
            return result

    torch.manual_seed(0)
    network = Wakes()
    image = np.full((99, 99), 5000, np.uint16)
    raw = plan_prediction(image, network, normalize="none")
    assert raw.probe.geometry.x.halo_before == 9
    assert plan_prediction(image, network, normalize="unit").probe.geometry.x.halo_before == 0


def test_labels_in_disguise_are_refused_and_a_hidden_threshold_costs_the_certificate() -> None:
    class Rounds(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.inner = nn.Conv2d(1, classes, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.inner(pixels)
            labels = found.argmax(dim=1, keepdim=True) + 1 if found.shape[1] > 1 else found > 0
            return labels.float()

    with pytest.raises(ModelError, match="look like labels; let it return logits"):
        plan_prediction(blank(50, 50), Rounds(4))
    plan = plan_prediction(blank(50, 50), Rounds(1))
    assert not plan.exact
    assert "zeros and ones only" in " ".join(plan.warnings)


def test_a_module_may_reduce_or_repeat_channels_before_its_first_convolution() -> None:
    class Grey(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(1, 2, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(pixels.mean(dim=1, keepdim=True))
            return result

    assert plan_prediction(blank(50, 50, 3), Grey()).channels == (0, 1, 2)
    assert plan_prediction(blank(50, 50), Grey()).channels == (0,)


def with_metadata(path: Path, **said: Any) -> Path:
    export_onnx(nn.Conv2d(1, 3, 3), path, in_channels=1)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"tile_infer": json.dumps(said)})
    onnx.save(model, path)
    return path


def test_metadata_of_the_model_reaches_the_plan(tmp_path: Path) -> None:
    path = with_metadata(tmp_path / "net.onnx", mean=[0.5], std=[0.25], classes=["a", "b", "c"])
    plan = plan_prediction(blank(50, 50), path)
    assert (plan.normalize, plan.recipe.offset, plan.recipe.scale) == (
        "given",
        (127.5,),
        (1 / 63.75,),
    )
    assert plan.class_names == ("a", "b", "c")
    assert plan_prediction(blank(50, 50), path, normalize="none").normalize == "none"


@pytest.mark.parametrize(
    "said",
    [
        {"classes": ["a", "b"]},
        {"mean": 0.5, "std": [1]},
        {"std": [0], "mean": [0]},
        {"mean": [0.5]},
        {"classes": "abc"},
    ],
)
def test_metadata_that_cannot_be_true_is_an_error(tmp_path: Path, said: dict[str, Any]) -> None:
    path = with_metadata(tmp_path / "net.onnx", **said)
    with pytest.raises(ModelError, match="metadata"):
        plan_prediction(blank(50, 50), path)


def test_an_alpha_channel_is_left_out_for_a_network_that_takes_one_fewer(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 255, (64, 80, 4), np.uint8)
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    plan = plan_prediction(tmp_path / "rgba.tif", nn.Conv2d(3, 2, 3))
    assert plan.channels == (0, 1, 2)
    assert "alpha channel was left out" in " ".join(plan.notes)
    assert plan_prediction(tmp_path / "rgba.tif", nn.Conv2d(4, 2, 3)).channels == (0, 1, 2, 3)


def test_a_plane_of_a_stack_is_chosen(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (3, 64, 80), np.uint8)
    tifffile.imwrite(
        tmp_path / "stack.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"}
    )
    with pytest.raises(OSError, match="z=0 to 2"):
        plan_prediction(tmp_path / "stack.tif", nn.Conv2d(1, 2, 3))
    plan = plan_prediction(tmp_path / "stack.tif", nn.Conv2d(1, 2, 3), z=1)
    assert plan.shape == (64, 80)
