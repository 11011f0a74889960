"""Parts of a mask, computed again in other tiles, agree with it, or else that is said."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from torch import nn

import tile_infer.engine.certificate as certificates
import tile_infer.engine.planning as planning
from tile_infer import OutputError, Prediction, SettingError, TileInferWarning, predict_large
from tile_infer.cli.main import main
from tile_infer.engine.certificate import _drawn, other_partition
from tile_infer.engine.probe_cache import inspect_once
from tile_infer.engine.verify import verify

from .run_plan import tree
from .scaled_networks import scaled_networks
from .seeded_networks import export, seeded, textured
from .test_wrong_tiling_shows import with_core
from .whole_pass import TOLERANCE

IMAGE = textured(700, 900, seed=8)
PIXELS = 700 * 900


def kept(group: zarr.Group) -> Any:
    """Return the certificate in a mask's attributes."""
    ours: Any = group.attrs["tile_infer"]
    return ours["certificate"]


def certificate(found: Prediction) -> dict[str, Any]:
    stored = kept(found.group)
    assert found.report["certificate"] == stored
    assert isinstance(stored, dict)
    return stored


def agrees(found: dict[str, Any]) -> None:
    """Fail unless labels agree, but for ties, and scores but for rounding."""
    assert found["ties_alone"]
    assert found["labels_differing"] <= 3
    assert found["scores_compared"] > 0
    assert found["largest_difference"] <= 2 * TOLERANCE * max(1, found["largest_score"])


NETWORKS: dict[str, dict[str, Any]] = {
    "valid": {"depth": 2, "padding": 0},
    "same": {"depth": 3, "padding": 1},
    "binary": {"depth": 2, "padding": 1, "classes": 1},
    "same, 256": {"depth": 3, "padding": 1, "size": (256, 256)},
    "valid, 140 x 220": {"depth": 2, "padding": 0, "size": (140, 220)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_pixel_has_its_label_in_other_tiles(name: str, tmp_path: Path) -> None:
    options = dict(NETWORKS[name])
    size = options.pop("size", None)
    module = seeded(seed=3, **options)
    model = export(module, tmp_path / "network.onnx", 1, size)
    found = predict_large(IMAGE, model, verify=1)
    told = certificate(found)
    agrees(told)
    assert told["pixels"] == PIXELS
    assert told["scores_compared"] > PIXELS / 4  # what lies in two of the run's tiles is left out
    assert told["core"] != list(found.plan.grid.core)
    assert (told["tile"] == list(found.plan.grid.tile)) == (size is not None)


@pytest.mark.parametrize("name", scaled_networks())
def test_a_mask_of_another_scale(name: str) -> None:
    image = textured(400, 520, seed=8)
    found = predict_large(image, scaled_networks()[name].module, verify=1)
    told = certificate(found)
    agrees(told)
    assert told["pixels"] == np.prod(found.plan.shape)


@pytest.mark.parametrize("tta", ["flips", "dihedral"])
def test_turned_tiles(tta: Any) -> None:
    told = certificate(predict_large(IMAGE, seeded(2, 1), tta=tta, verify=1))
    assert told["scores"] == "probabilities"
    agrees(told)


def test_logits_that_are_stored_are_what_is_compared(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    told = certificate(predict_large(IMAGE, seeded(2, 1), out, output="logits", verify=1))
    agrees(told)
    logits = zarr.open_array(out / "logits", mode="r+")
    logits[0, 5, 7] = np.asarray(logits[0, 5, 7]) + 100
    _, again = verify(out, IMAGE, seeded(2, 1), share=1)
    assert again
    assert again.largest_difference
    assert 99 < again.largest_difference < 101
    assert again.labels_differing == told["labels_differing"]


def test_by_default_little_is_compared_and_it_is_drawn_by_the_plan(tmp_path: Path) -> None:
    network = seeded(2, 1)
    image = textured(1500, 1400, seed=1)
    found = predict_large(image, network, tile=(128, 128))
    told = certificate(found)
    assert told["places"] == 1
    assert 0 < told["pixels"] <= 0.01 * image.size
    assert told["labels_differing"] == 0
    assert certificate(predict_large(image, network, tile=(128, 128))) == told
    assert told["scores_compared"] > 0  # of a hundred tiles and more one is little
    few = certificate(predict_large(IMAGE, network))
    assert (few["scores_compared"], few["largest_difference"]) == (0, None)
    assert predict_large(IMAGE, network, verify=0).report["certificate"] is None


def test_a_share_is_drawn_without_repetition() -> None:
    plan = predict_large(IMAGE, seeded(2, 1), verify=0).plan
    other = other_partition(plan)
    assert other
    for share in (0.01, 0.3, 1.0):
        cells = _drawn(plan.grid, other.grid, share, seed=5)
        assert len(set(cells)) == len(cells) == max(1, round(share * other.grid.blocks))
    assert _drawn(plan.grid, other.grid, 0.3, 6) != _drawn(plan.grid, other.grid, 0.3, 5)


def test_a_tile_is_not_compared_with_itself(tmp_path: Path) -> None:
    model = export(seeded(2, 1), tmp_path / "128.onnx", 1, (128, 128))
    plan = predict_large(IMAGE, model, verify=0).plan
    other = other_partition(plan)
    assert other
    assert other.grid.tile == plan.grid.tile
    cores = plan.grid.core
    for seed in range(50):
        (cell,) = _drawn(plan.grid, other.grid, 0.001, seed)
        assert cell.y.start % cores[0] or cell.x.start % cores[1]


@pytest.mark.parametrize("core", [384, 388])
def test_a_mask_of_tiles_out_of_phase_is_found_out(
    core: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = export(seeded(4, 0, classes=3, seed=4), tmp_path / "572.onnx", 1, (572, 572))
    image = textured(900, 1000, seed=8)
    with_core(core, monkeypatch)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", TileInferWarning)
        told = certificate(predict_large(image, model, verify=1))
    doubts = [
        str(each.message) for each in said if "not that of one whole pass" in str(each.message)
    ]
    if core == 384:
        agrees(told)
        assert not doubts
    else:
        assert told["labels_differing"] > 0.01 * image.size
        assert not told["ties_alone"]
        assert len(doubts) == 1


def test_half_the_halo_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(*arguments: Any) -> Any:
        probe = inspect_once(*arguments)
        axes = (probe.geometry.y, probe.geometry.x)
        for axis in axes:
            object.__setattr__(axis, "halo_before", axis.halo_before // 2)
            object.__setattr__(axis, "halo_after", axis.halo_after // 2)
        return probe

    monkeypatch.setattr(planning, "inspect_once", half)
    with pytest.warns(TileInferWarning, match="not that of one whole pass"):
        told = certificate(predict_large(IMAGE, seeded(3, 1), verify=1))
    assert told["largest_difference"] > 0.01 * told["largest_score"]


def test_the_seams_of_a_blended_mask_are_measured() -> None:
    class Mean(nn.Module):
        """Adds the mean of the tile."""

        def __init__(self) -> None:
            super().__init__()
            self.body = seeded(2, 1)

        def forward(self, image: Any) -> Any:
            return self.body(image) + 3 * image.mean((2, 3), keepdim=True)

    with pytest.warns(TileInferWarning, match="every pixel of a tile|cannot be tiled"):
        found = predict_large(IMAGE[:300, :400], Mean(), tile=(128, 128), verify=1)
    told = certificate(found)
    assert found.plan.blend
    assert told["scores"] == "probabilities"
    assert told["largest_difference"] > 1e-3
    assert told["pixels"] == 300 * 400


def test_a_network_that_takes_no_other_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "other_partition", lambda plan: None)
    found = predict_large(IMAGE, seeded(2, 1))
    assert found.report["certificate"] is None
    assert kept(found.group) is None


def test_pixels_that_were_not_computed_are_not_expected(tmp_path: Path) -> None:
    image = IMAGE.astype(np.float32)
    image[100:300, 200:400] = np.nan
    found = predict_large(image, seeded(2, 1), normalize="none", verify=1)
    told = certificate(found)
    assert np.count_nonzero(np.asarray(found) == 255) == 200 * 200
    agrees(told)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Write image and network beside the mask that was made of them."""
    import tifffile

    tifffile.imwrite(tmp_path / "slide.tif", IMAGE[..., 0], tile=(256, 256))
    export(seeded(2, 1), tmp_path / "network.onnx", 1, None)
    out = tmp_path / "mask.zarr"
    predict_large(tmp_path / "slide.tif", tmp_path / "network.onnx", out, verify=0)
    return out


def told_by(out: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = main(["verify", str(out), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_a_mask_is_verified_later(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(made)
    code, told = told_by(made, "--fraction", "1", capsys=capsys)
    assert (code, told["pixels"]) == (0, PIXELS)
    agrees(told)
    changed = {name for name, content in tree(made).items() if before.get(name) != content}
    assert changed == {"zarr.json"}  # where it is kept
    assert kept(zarr.open_group(made, mode="r")) == told
    assert main(["verify", str(made)]) == 0
    assert "have another label in other tiles" in capsys.readouterr().out


def test_labels_that_somebody_changed_are_found(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    level = zarr.open_array(made / "0", mode="r+")
    labels: NDArray[np.generic] = np.asarray(level[400:420, 500:530])
    level[400:420, 500:530] = (labels + 1) % 3
    code, told = told_by(made, "--fraction", "1", capsys=capsys)
    assert (code, told["labels_differing"]) == (1, 600)
    assert not told["ties_alone"]
    assert main(["verify", str(made), "--fraction", "1"]) == 1
    assert "600 of 630000 labels are others in tiles" in capsys.readouterr().err


def test_what_cannot_be_verified_is_told(made: Path) -> None:
    image, model = made.parent / "slide.tif", made.parent / "network.onnx"
    with pytest.raises(OutputError, match="made of something else: image"):
        verify(made, IMAGE[::-1, :, 0].copy(), share=1)
    another = export(seeded(2, 1, seed=9), made.parent / "another.onnx", 1, None)
    with pytest.raises(OutputError, match="made of something else: model"):
        verify(made, image, another, share=1)
    with pytest.raises(OutputError, match="holds no mask"):
        verify(made.parent / "none.zarr", image, model, share=1)
    attributes = json.loads((made / "zarr.json").read_text())
    del attributes["attributes"]["tile_infer"]["complete"]
    (made / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(OutputError, match="is unfinished"):
        verify(made, image, model, share=1)
    model.unlink()
    with pytest.raises(SettingError, match="no files beside the mask have the name of its model"):
        verify(made, image, share=1)
    image.rename(made.parent / "other.tif")
    with pytest.raises(SettingError, match="say which it is with image=PATH"):
        verify(made, share=1)


def test_the_command_line_names_its_options(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made.parent / "network.onnx").rename(made.parent / "another.onnx")
    assert main(["verify", str(made)]) == 2
    assert "with --model PATH" in capsys.readouterr().err
    assert main(["verify", str(made), "--model", str(made.parent / "another.onnx")]) == 0
    assert main(["verify", str(made), "--fraction", "1.5"]) == 2
    assert "fraction=1.5 is not a share" in capsys.readouterr().err


def test_names_in_a_mask_are_no_paths(made: Path, tmp_path: Path) -> None:
    plan = made / "tile_infer" / "zarr.json"
    image = made.parent / "slide.tif"
    stored = json.loads(plan.read_text())
    stored["attributes"]["plan"]["image"]["name"] = str(image)
    plan.write_text(json.dumps(stored))
    with pytest.raises(SettingError, match="no files beside the mask have the name of its image"):
        verify(made, share=1)
