"""From an image and a network to a mask: what a caller sees, also when something is wrong."""

from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import tifffile
import torch
import zarr
from numpy.typing import NDArray
from torch import nn

from tile_infer import (
    DeviceError,
    ImageError,
    ModelError,
    OutputError,
    SettingError,
    TileInferError,
    TileInferWarning,
    predict_large,
)
from tile_infer.engine import runtime
from tile_infer.engine.networks.export import export_onnx


def image(height: int = 300, width: int = 400) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (height, width), np.uint8)


class Threshold(nn.Module):
    """Says 1 where the pixel is above 0.5."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels - 0.5


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    path = tmp_path / "slide.ome.tif"
    tifffile.imwrite(path, image(), tile=(64, 64))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "net.onnx"
    export_onnx(nn.Conv2d(1, 3, 5), path, in_channels=1, classes=["a", "b", "c"])
    return path


def test_the_mask_lies_beside_the_slide_and_bears_both_names(slide: Path, model: Path) -> None:
    prediction = predict_large(slide, model)
    place = slide.parent / "slide.net.zarr"
    assert prediction.report["mask"] == str(place)
    stored = zarr.open_group(place, mode="r")["0"]
    assert isinstance(stored, zarr.Array)
    np.testing.assert_array_equal(stored[:], np.asarray(prediction))
    assert prediction.mask.shape == (300, 400)
    assert prediction.mask.dtype == np.uint8
    assert {"ome", "tile_infer"} == set(prediction.group.attrs)


def test_an_array_gives_a_mask_in_memory() -> None:
    prediction = predict_large(image(), Threshold(), activation="none", threshold=1e-9)
    np.testing.assert_array_equal(np.asarray(prediction), image() / 255 > 0.5)
    assert prediction.report["mask"].startswith("memory")


def test_a_mask_in_memory_is_refused_above_the_limit() -> None:
    large = np.broadcast_to(np.uint8(0), (60000, 60000))
    with pytest.raises(SettingError, match="give out=PATH"):
        predict_large(large, Threshold(), memory=2 << 30)


def test_the_report_has_its_keys_and_adds_up(slide: Path, model: Path) -> None:
    report = predict_large(slide, model).report
    assert {
        "mask", "shape", "seconds", "megapixels_per_second", "device", "precision", "backend",
        "peak_rss_bytes", "network", "plan",
    } <= set(report)  # fmt: skip
    assert [row["name"] for row in report["classes"]] == ["a", "b", "c"]
    assert sum(row["pixels"] for row in report["classes"]) == 300 * 400
    counts = np.bincount(np.asarray(predict_large(slide, model)).ravel(), minlength=3)
    assert [row["pixels"] for row in report["classes"]] == counts.tolist()


def test_probabilities_are_stored_besides_the_mask(slide: Path, model: Path) -> None:
    prediction = predict_large(slide, model, output="probabilities")
    found = prediction.probabilities
    assert found is not None
    assert found.shape == (3, 300, 400)
    assert found.dtype == "float16"
    values = np.asarray(found[:], np.float64)
    np.testing.assert_allclose(values.sum(axis=0), 1, atol=2e-3)
    clear = np.sort(values, axis=0)[-1] - np.sort(values, axis=0)[-2] > 2e-3
    np.testing.assert_array_equal(values.argmax(axis=0)[clear], np.asarray(prediction)[clear])
    assert prediction.logits is None


def test_a_finished_mask_is_returned_without_running_anything(slide: Path, model: Path) -> None:
    first = predict_large(slide, model)
    again = predict_large(slide, model, on_progress=lambda _: pytest.fail("it ran"))
    assert again.report["blocks_run"] == 0
    assert again.report["classes"] == first.report["classes"]


def test_settings_that_are_left_out_the_second_time_are_kept_and_said(
    slide: Path, model: Path
) -> None:
    first = predict_large(slide, model, tta="flips", normalize="zscore", workers=1)
    with pytest.warns(match=r"was begun with normalize=zscore, tta=flips and is kept so"):
        again = predict_large(slide, model)
    assert again.plan == first.plan


def test_planes_of_one_stack_have_masks_of_their_own(tmp_path: Path, model: Path) -> None:
    stack = np.stack([image(), image()[::-1]])
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"})
    places = [predict_large(path, model, z=z).report["mask"] for z in (0, 1)]
    assert places == [str(tmp_path / f"stack.z{z}.net.zarr") for z in (0, 1)]
    with pytest.raises(OutputError, match=r"other settings \(z: 0 then, 1 now\)"):
        predict_large(path, model, places[0], z=1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precision": "fp16"}, "precision: fp32 then, fp16 now"),
        ({"normalize": "zscore"}, "normalize: unit then, zscore now"),
        ({"output": "probabilities"}, "output: labels then, probabilities now"),
        ({"blend": "hann"}, "blend: not given then, hann now"),
    ],
)
def test_an_output_of_other_settings_is_refused_and_kept(
    slide: Path, model: Path, options: dict[str, Any], named: str
) -> None:
    before = np.asarray(predict_large(slide, model))
    with pytest.raises(OutputError, match="overwrite to start again") as caught:
        predict_large(slide, model, **options)
    assert named in str(caught.value)
    np.testing.assert_array_equal(np.asarray(predict_large(slide, model)), before)
    predict_large(slide, model, overwrite=True, **options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"channels": (5,)}, r"channels=5: slide\.ome\.tif has one channel, channels=0$"),
        ({"level": 9}, r"level=9 is not in slide\.ome\.tif"),
    ],
)
def test_what_the_image_does_not_have_is_told_before_other_settings(
    slide: Path, model: Path, options: dict[str, Any], told: str
) -> None:
    predict_large(slide, model)
    with pytest.raises(SettingError, match=told):
        predict_large(slide, model, **options)


def test_another_image_or_network_on_the_same_output_is_refused(slide: Path, model: Path) -> None:
    out = slide.parent / "mask.zarr"
    predict_large(slide, model, out)
    tifffile.imwrite(slide, 255 - image(), tile=(64, 64))
    with pytest.raises(OutputError, match=r"image: slide\.ome\.tif with other content"):
        predict_large(slide, model, out)
    tifffile.imwrite(slide, image(), tile=(64, 64))
    export_onnx(nn.Conv2d(1, 3, 5), model, in_channels=1)
    with pytest.raises(OutputError, match="model: net with other content"):
        predict_large(slide, model, out)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "tf32"},
        {"precision": "bf16", "backend": "onnx"},
        {"device": "cuda:99"},
        {"channels": (1,)},
        {"level": 1},
        {"threshold": 0.3},
        {"memory": 1000},
        {"head": "other"},
    ],
)
def test_what_cannot_run_leaves_nothing_behind_and_deletes_no_mask(
    slide: Path, model: Path, options: dict[str, Any]
) -> None:
    out = slide.parent / "mask.zarr"
    with pytest.raises(TileInferError):
        predict_large(slide, model, out, **options)
    assert not out.exists()
    before = np.asarray(predict_large(slide, model, out))
    with pytest.raises(TileInferError):
        predict_large(slide, model, out, overwrite=True, **options)
    np.testing.assert_array_equal(np.asarray(predict_large(slide, model, out)), before)


def test_a_gpu_that_the_backend_cannot_use_is_no_reason_to_fail_unless_it_was_asked_for(
    slide: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine's GPU can be used")
    found = {"auto": ("cuda:0",), "cuda": ("cuda:0",), "cpu": ("cpu",)}
    monkeypatch.setattr(runtime, "resolve_devices", found.__getitem__)
    with pytest.raises(DeviceError, match="device=cuda:0"):
        predict_large(slide, model, device="cuda")
    with pytest.warns(TileInferWarning, match="running on the CPU: device=cuda:0"):
        prediction = predict_large(slide, model)
    assert prediction.report["device"] == "cpu"


def test_a_read_that_fails_names_block_and_place_and_does_not_end_as_success(
    tmp_path: Path,
) -> None:
    def broken(pixels: NDArray[np.uint8], block_info: Any = None) -> NDArray[np.uint8]:
        if block_info and block_info[0]["chunk-location"] == (1, 1):
            raise ValueError("cable unplugged")
        return pixels

    pixels = dask.array.from_array(image(2000, 2000), chunks=1024)
    pixels = pixels.map_blocks(broken, dtype=np.uint8)
    out = tmp_path / "mask.zarr"
    for _ in range(2):  # the second run continues the first, and fails at the same place
        with pytest.raises(
            ImageError, match=r"cable unplugged.*block 3 \(pixels 1024:2000, 1024:2000\)"
        ):
            predict_large(pixels, Threshold(), out, tile=(512, 512))
        assert "complete" not in zarr.open_group(out, mode="r").attrs["tile_infer"]  # type: ignore[operator]


def test_nan_from_the_network_fails_with_block_and_count() -> None:
    class Broken(Threshold):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.where(pixels == 255, torch.nan, pixels - 0.5)

    pixels = np.minimum(image(), 200)
    pixels[20, 30:33] = 255
    with pytest.raises(ArithmeticError, match=r"NaN or infinity for 3 pixels of block 0 "):
        predict_large(pixels, Broken(), normalize="none")


def test_warnings_name_what_was_measured(slide: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1))
    with pytest.warns(TileInferWarning, match="cannot be tiled exactly"):
        prediction = predict_large(slide, network, slide.parent / "blended.zarr")
    assert prediction.group.attrs["tile_infer"]["exact"] is False  # type: ignore[index, call-overload]


def test_a_module_is_given_back_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout())
    threads = torch.get_num_threads()
    predict_large(image(40, 40), module)
    assert module.training
    assert torch.get_num_threads() == threads


class TwoHeads(nn.Module):
    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pixels - 0.5, 0.5 - pixels


def test_another_head_does_not_continue_a_mask(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    first = np.asarray(predict_large(image(), TwoHeads(), out, head="0"))
    with pytest.raises(OutputError, match="head: 0 then, 1 now"):
        predict_large(image(), TwoHeads(), out, head="1")
    second = np.asarray(predict_large(image(), TwoHeads(), out, head="1", overwrite=True))
    assert (first != second).mean() > 0.99


def test_an_output_may_not_overwrite_its_image(tmp_path: Path) -> None:
    source = zarr.create_array(tmp_path / "image.zarr", data=image(), chunks=(100, 100))
    for out in (tmp_path / "image.zarr", tmp_path, tmp_path / "image.zarr" / "mask"):
        with pytest.raises(OutputError, match=r"overlap|no mask of tile-infer"):
            predict_large(tmp_path / "image.zarr", Threshold(), out, overwrite=True)
    np.testing.assert_array_equal(source[:], image())


def test_a_users_partial_file_is_neither_deleted_nor_overlooked(tmp_path: Path) -> None:
    out = tmp_path / "folder"
    out.mkdir()
    (out / "slide.tif.partial").write_text("half a download")
    with pytest.raises(OutputError, match="no mask of tile-infer"):
        predict_large(image(), Threshold(), out)
    assert (out / "slide.tif.partial").read_text() == "half a download"


def test_a_finished_mask_that_lost_a_chunk_of_its_pyramid_gets_it_back(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    pixels = image(2500, 2100)
    before = predict_large(pixels, Threshold(), out, tile=(256, 256))
    level = before.group["1"]
    assert isinstance(level, zarr.Array)
    whole = np.asarray(level[:])
    (out / "1" / "c" / "0" / "0").unlink()
    after = predict_large(pixels, Threshold(), out).group["1"]
    assert isinstance(after, zarr.Array)
    np.testing.assert_array_equal(np.asarray(after[:]), whole)
    assert len(np.unique(whole)) == 2


def test_a_network_that_fails_on_the_real_tiles_fails_before_the_output_is_touched(
    tmp_path: Path,
) -> None:
    class Small(nn.Module):
        runs = 0

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            self.runs += 1  # which is why it is run as it is, several tiles at once
            if pixels.shape[0] > 1:
                raise RuntimeError("one at a time, please")
            return pixels

    out = tmp_path / "mask.zarr"
    before = np.asarray(predict_large(image(), Threshold(), out))
    with pytest.raises(ModelError, match=r"cannot run 2 tiles .* one at a time, please"):
        predict_large(image(), Small(), out, batch_size=2, overwrite=True)
    np.testing.assert_array_equal(np.asarray(predict_large(image(), Threshold(), out)), before)


def test_limits_of_memory_may_change_when_a_run_is_continued(slide: Path, model: Path) -> None:
    predict_large(slide, model)
    predict_large(slide, model, memory=2 << 30, device_memory=1 << 30)


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "mask.zarr"
    link.symlink_to(tmp_path / "disk")
    predict_large(image(), Threshold(), link)
    predict_large(image(), Threshold(), link, overwrite=True)
    assert link.is_symlink()
    assert (tmp_path / "disk" / "zarr.json").exists()


def test_the_store_of_an_image_given_as_an_object_is_not_its_output(tmp_path: Path) -> None:
    first = predict_large(image(), Threshold(), tmp_path / "mask.zarr")
    before = np.asarray(first)
    for given in (first.mask, first.group):
        with pytest.raises(OutputError, match="store of the image"):
            predict_large(given, Threshold(), tmp_path / "mask.zarr", overwrite=True)
    np.testing.assert_array_equal(np.asarray(first), before)


def test_a_run_that_fails_at_once_leaves_no_output(tmp_path: Path) -> None:
    class Broken(Threshold):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if pixels.shape[-1] == 320 and pixels.max() > 0.5:
                raise RuntimeError("not today")
            return super().forward(pixels)

    out = tmp_path / "mask.zarr"
    with pytest.raises(ModelError, match="not today"):
        predict_large(image(), Broken(), out, tile=(320, 320))
    assert not out.exists()
    predict_large(image(), Threshold(), out)  # other settings are no contradiction


def test_a_run_that_fails_later_keeps_what_is_done(tmp_path: Path) -> None:
    left = [1000]  # not on the module, which it would make another one

    class Tires(Threshold):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            left[-1] -= 1
            if left[-1] < 0:
                raise RuntimeError("tired")
            return super().forward(pixels)

    out, network, pixels = tmp_path / "mask.zarr", Tires(), image(2500, 2100)
    network.register_forward_hook(lambda *_: None)  # so that it is run as it is
    with pytest.raises(ModelError, match="tired"):
        # From the first block on: the first two are of 72 tiles together.
        predict_large(pixels, network, out, tile=(256, 256), on_plan=lambda _: left.append(75))
    left.append(1000)
    again = predict_large(pixels, network, out)
    assert 0 < again.report["blocks_run"] < again.plan.grid.blocks


@pytest.mark.filterwarnings("ignore:.*cannot be tiled exactly")
def test_a_tile_that_a_network_shortens_is_refused_and_leaves_no_output(
    tmp_path: Path,
) -> None:
    class Pools(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.InstanceNorm2d(4),
                nn.MaxPool2d(4),
                nn.Conv2d(4, 2, 1),
                nn.Upsample(scale_factor=4),
            )

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(pixels)
            return result

    out = tmp_path / "mask.zarr"
    with pytest.raises((ModelError, SettingError)):
        predict_large(image(), Pools(), out, tile=(66, 66))
    assert not out.exists()


@pytest.mark.parametrize("part", ["tile_infer/zarr.json", "0/zarr.json", "zarr.json"])
def test_a_damaged_mask_is_told_and_can_be_started_again(tmp_path: Path, part: str) -> None:
    out = tmp_path / "mask.zarr"
    before = np.asarray(predict_large(image(), Threshold(), out))
    (out / part).write_text("{")
    with pytest.raises(OutputError, match="use overwrite to start again"):
        predict_large(image(), Threshold(), out)
    again = predict_large(image(), Threshold(), out, overwrite=True)
    np.testing.assert_array_equal(np.asarray(again), before)
