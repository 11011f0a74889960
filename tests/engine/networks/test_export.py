"""The exported file gives Torch's logits at every valid size, and says what it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from tile_infer.engine.backends.metadata import METADATA_KEY
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.network import SegmentationNetwork
from tile_infer.engine.networks.registry import NETWORKS, build
from tile_infer.engine.networks.unet import UNet
from tile_infer.tiler.errors import SettingError


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(in_channels=3, width=4).eval()


@pytest.fixture(scope="module")
def free(network: UNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "free.onnx"
    names = ("background", "nucleus")
    export_onnx(network, path, in_channels=3, classes=names, normalize="unit")
    return path


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def images(batch: int, height: int, width: int, channels: int = 3) -> NDArray[np.float32]:
    random = np.random.default_rng(batch * height * width)
    return random.random((batch, channels, height, width), np.float32)


def assert_same_logits(
    network: SegmentationNetwork, path: Path, image: NDArray[np.float32], share: float = 1
) -> None:
    """Check all logits, or a share of them."""
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    got = session(path).run(["logits"], {"image": image})[0]
    assert got.shape == expected.shape
    assert np.quantile(np.abs(got - expected), share) <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("size", [(188, 188), (204, 188), (188, 300), (572, 572)])
def test_one_file_gives_torchs_logits_at_every_size(
    network: UNet, free: Path, size: tuple[int, int]
) -> None:
    assert_same_logits(network, free, images(1, *size))


@pytest.mark.parametrize("batch", [2, 3])
def test_one_file_takes_any_batch(network: UNet, free: Path, batch: int) -> None:
    assert_same_logits(network, free, images(batch, 204, 220))


def test_a_fixed_size_is_the_only_one_the_file_takes(network: UNet, tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    export_onnx(network, path, in_channels=3, size=(572, 572), batch=1)
    assert session(path).get_inputs()[0].shape == [1, 3, 572, 572]
    assert_same_logits(network, path, images(1, 572, 572))
    with pytest.raises(Exception, match="Got invalid dimensions"):
        session(path).run(None, {"image": images(1, 588, 588)})


def test_a_same_padded_network_is_free_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = UNet(in_channels=1, width=4, depth=3, padding="same", batch_norm=True).eval()
    path = tmp_path / "same.onnx"
    export_onnx(network, path, in_channels=1)
    assert_same_logits(network, path, images(2, 64, 120, channels=1))


def test_axes_classes_and_normalisation_are_stated(free: Path) -> None:
    model = onnx.load(free)
    stated = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(stated[METADATA_KEY]) == {
        "classes": ["background", "nucleus"],
        "normalize": "unit",
    }
    (entry,) = session(free).get_inputs()
    assert (entry.name, entry.shape) == ("image", ["batch", 3, "y", "x"])
    assert [one.name for one in session(free).get_outputs()] == ["logits"]
    assert model.opset_import[0].version >= 17


def test_nothing_is_stated_when_nothing_is_known(network: UNet, tmp_path: Path) -> None:
    path = tmp_path / "bare.onnx"
    export_onnx(network, path, in_channels=3)
    assert not onnx.load(path).metadata_props


def test_weights_are_in_the_file_and_no_other_is_written(free: Path) -> None:
    assert [path.name for path in free.parent.iterdir()] == [free.name]


def test_logits_are_raw(free: Path) -> None:
    last = onnx.load(free).graph.node[-1]
    assert last.op_type == "Conv"


def test_the_network_stays_in_the_mode_it_was_in(network: UNet, tmp_path: Path) -> None:
    network.train()
    try:
        export_onnx(network, tmp_path / "a.onnx", in_channels=3)
        assert network.training
    finally:
        network.eval()


def test_too_few_class_names_are_refused(network: UNet, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="got 1 names for 2"):
        export_onnx(network, tmp_path / "a.onnx", in_channels=3, classes=["nucleus"])
    assert not list(tmp_path.iterdir())


def test_a_size_of_nothing_is_refused(network: UNet, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="size and batch >= 1"):
        export_onnx(network, tmp_path / "a.onnx", in_channels=3, size=(0, 572))


NETWORKS_AND_WAYS = [
    *((name, {}) for name in NETWORKS if name != "unet"),
    *((name, {"way": "unpooling"}) for name in ("fcn32s", "fcn16s", "fcn8s")),
    *((name, {"way": "upsampling"}) for name in ("fcn32s", "fcn16s", "fcn8s")),
]


@pytest.mark.parametrize(("name", "options"), NETWORKS_AND_WAYS, ids=str)
def test_every_networks_file_gives_its_logits_at_other_sizes_and_batches(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = build(name, in_channels=3, width=2, **options).eval()
    for start in network.parameters():  # skips start at zero and would tell nothing
        if not start.any():
            torch.nn.init.normal_(start, std=0.1)
    path = tmp_path / "net.onnx"
    export_onnx(network, path, in_channels=3)
    # Where two pixels are equal but for rounding, unpooling may put the larger one elsewhere.
    share = 0.97 if options == {"way": "unpooling"} else 1
    for batch, height, width in ((1, 64, 64), (3, 96, 160), (2, 128, 32)):
        assert_same_logits(network, path, images(batch, height, width), share)


@pytest.mark.parametrize(("name", "size"), [("unet", 572), ("unetpp", 64), ("fcn8s", 96)])
def test_a_size_of_another_phase_is_refused_with_the_next_one(
    name: str, size: int, tmp_path: Path
) -> None:
    network = build(name, in_channels=3, width=2)
    for wrong in (size - 1, size - network.period + 1):
        with pytest.raises(SettingError, match=rf"{wrong} px is none .* e\.g\. {size}$"):
            export_onnx(network, tmp_path / "a.onnx", in_channels=3, size=(size, wrong))
    assert not list(tmp_path.iterdir())
    export_onnx(network, tmp_path / "a.onnx", in_channels=3, size=(size, size))


def test_percentiles_are_stated(network: UNet, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    export_onnx(
        network,
        path,
        in_channels=3,
        normalize="percentile",
        percentiles=(2.0, 98.0),
        size=(188, 188),
    )
    stated = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(stated[METADATA_KEY])["percentiles"] == [2.0, 98.0]
