import json
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from tile_infer.cli.summary import _shares

from .conftest import Run, Write, write_network
from .test_usage import assert_one_error


def labels(path: Path | str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    array = zarr.open_array(f"{path}/0", mode="r")
    return np.asarray(array[:])


def test_the_mask_lies_beside_the_image_and_has_the_networks_labels(
    run: Run, image: Write, bright: Path
) -> None:
    path = image()
    done = run(path, "--model", bright)
    assert done.code == 0
    expected = tifffile.imread(path) > 127
    assert (labels("slide.bright.zarr") == expected).all()
    assert 0.1 < expected.mean() < 0.9


def test_summary_goes_to_stdout_and_what_was_assumed_to_stderr(
    run: Run, image: Write, bright: Path
) -> None:
    done = run(image(), "--model", bright)
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0][0].endswith("slide.bright.zarr")
    assert ["size", "40", "x", "60", "px", "(height", "x", "width)"] in lines
    share = (np.arange(2400).astype(np.uint8) > 127).mean()
    assert ["class", "1", f"{100 * share:.2f}", "%"] in lines
    assert done.err.startswith("note: uint8 divided by 255")


def test_area_is_in_the_units_of_the_file(run: Run, bright: Path, tmp_path: Path) -> None:
    pixels = np.zeros((100, 50), np.uint8)
    pixels[:20] = 255
    tifffile.imwrite(
        tmp_path / "slide.tif", pixels, resolution=(1e4 / 0.5, 1e4 / 0.5), resolutionunit=3
    )
    done = run("slide.tif", "--model", bright)
    assert "20.00 %  250 um2" in done.out  # 1000 px of 0.5 um x 0.5 um


def test_quiet_prints_nothing_but_warnings_and_errors(
    run: Run, image: Write, bright: Path, whole_tile: Path
) -> None:
    done = run(image(), "--model", bright, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    warned = run(image(), "--model", whole_tile, "--quiet")
    assert (warned.code, warned.out) == (0, "")
    assert warned.err.startswith("warning: whole cannot be tiled exactly")
    assert len(warned.err.splitlines()) == 1


def test_warnings_of_other_libraries_are_shown_only_if_asked(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tile_infer.engine import predict as engine

    def chatty(*arguments: object, **options: object) -> object:
        warnings.warn("from elsewhere", RuntimeWarning, stacklevel=1)
        return engine.predict(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("tile_infer.cli.segment.predict", chatty)
    assert "elsewhere" not in run(image(), "--model", bright).err
    assert "elsewhere" in run(image(), "--model", bright, "-v").err


def test_brackets_in_a_name_are_printed_as_they_are(run: Run, image: Write, bright: Path) -> None:
    done = run(image("[red]1.tif"), "--model", bright)
    assert done.code == 0
    assert "[red]1.bright.zarr" in done.out
    assert "[bold]2.tif" in run("[bold]2.tif", "--model", bright).err


def test_a_finished_mask_is_already_complete_and_reported_again(
    run: Run, image: Write, bright: Path
) -> None:
    first = run(image(), "--model", bright)
    assert "already complete" not in first.out
    again = run("slide.tif", "--model", bright, "--report", "r.json")
    assert again.code == 0
    assert "already complete" in again.out
    report = json.loads(Path("r.json").read_text())
    assert report["shape"] == [40, 60]
    assert sum(entry["pixels"] for entry in report["classes"]) == 2400


def test_blocks_for_which_memory_ran_out_are_told(run: Run, image: Write, bright: Path) -> None:
    assert "memory  " not in run(image(), "--model", bright, "--report", "r.json").out
    report = json.loads(Path("r.json").read_text())
    assert report["changed"] == []
    report["changed"] = [
        {"tile": [64, 64], "batch": 1, "blocks": [3, 4]},
        {"tile": [32, 32], "batch": 1, "blocks": [5]},
    ]
    told = "ran out: 3 blocks in smaller tiles or batches (--report lists them)"
    assert ("memory", told) in _shares(report)


def test_report_has_the_keys_that_programs_rely_on(run: Run, image: Write, bright: Path) -> None:
    assert run(image(), "--model", bright, "--report", "r.json").code == 0
    report = json.loads(Path("r.json").read_text())
    assert set(report) >= {
        "mask",
        "shape",
        "seconds",
        "megapixels_per_second",
        "device",
        "precision",
        "backend",
        "peak_rss_bytes",
        "network",
        "plan",
    }
    assert (report["device"], report["precision"], report["backend"]) == ("cpu", "fp32", "onnx")
    assert report["network"]["verdict"] == "bounded"
    assert report["plan"]["blocks"] == 1


@pytest.mark.parametrize(("option", "name"), [("--report", "r.json"), ("--preview", "p.png")])
def test_report_and_picture_replace_a_file_and_are_never_written_into_it(
    run: Run, image: Write, bright: Path, option: str, name: str
) -> None:
    Path("same.txt").write_text("old")
    Path(name).hardlink_to("same.txt")
    assert run(image(), "--model", bright, option, name).code == 0
    assert Path("same.txt").read_text() == "old"
    assert Path(name).stat().st_size > 3


def test_a_file_inside_the_mask_is_refused(run: Run, image: Write, bright: Path) -> None:
    path = image()
    assert run(path, "--model", bright, "--out", "m.zarr").code == 0
    done = run(path, "--model", bright, "--out", "m.zarr", "--also", "m.zarr/m.tif")
    assert done.code == 2
    assert_one_error(done.err, "--also m.zarr/m.tif lies inside the mask; choose another place")


def test_other_settings_are_refused_by_name_and_overwrite_starts_again(
    run: Run, image: Write, bright: Path
) -> None:
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[..., 1] = 255
    path = image("slide.tif", rgb)
    assert run(path, "--model", bright, "--channels", "0").code == 0
    other = run(path, "--model", bright, "--channels", "1")
    assert other.code == 1
    assert_one_error(other.err, "channels", "--overwrite", "--out")
    assert not labels("slide.bright.zarr").any()
    assert run(path, "--model", bright, "--channels", "1", "--overwrite").code == 0
    assert labels("slide.bright.zarr").all()


def test_a_mask_is_written_where_out_says(run: Run, image: Write, bright: Path) -> None:
    assert run(image(), "--model", bright, "--out", "deep/er/mask.zarr").code == 0
    assert labels("deep/er/mask.zarr").shape == (40, 60)


class TestSeveralImages:
    def test_one_that_fails_is_named_and_the_others_are_done(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        image("a.tif")
        Path("b.tif").write_bytes(b"II*\0 this is no image")
        image("c.tif")
        done = run("a.tif", "b.tif", "missing.tif", "c.tif", "--model", bright, "--out", "masks")
        assert done.code == 1
        assert "2 of 4 images done" in done.out
        assert "2 of 4 images failed" in done.err
        end = done.err.split("images failed:")[1]
        assert "b.tif" in end
        assert "missing.tif" in end
        assert "a.tif" not in end
        for name in ("a", "c"):
            assert labels(f"masks/{name}.bright.zarr").any()

    def test_all_done_is_a_success(self, run: Run, image: Write, bright: Path) -> None:
        image("a.tif")
        image("b.tif")
        done = run("a.tif", "b.tif", "--model", bright)
        assert done.code == 0
        assert done.out.splitlines()[-1].startswith("2 of 2 images done: ")
        assert Path("a.bright.zarr").is_dir()
        assert Path("b.bright.zarr").is_dir()

    @pytest.mark.parametrize("out", [["--out", "masks"], []])
    def test_two_that_would_share_a_mask_are_refused(
        self, run: Run, image: Write, bright: Path, out: list[str]
    ) -> None:
        image("a.tif")
        image("a.tiff")
        done = run("a.tif", "a.tiff", "--model", bright, *out)
        assert done.code == 2
        assert_one_error(done.err, "a.tif and", "a.tiff", "a.bright.zarr", "--out")
        assert not list(Path().rglob("*.zarr"))

    def test_same_names_in_two_folders_share_no_mask_beside_the_images(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        Path("x").mkdir()
        Path("y").mkdir()
        image("x/a.tif")
        image("y/a.tif")
        assert run("x/a.tif", "y/a.tif", "--model", bright).code == 0
        assert run("x/a.tif", "y/a.tif", "--model", bright, "--out", "masks").code == 2

    def test_an_image_given_twice_is_told_so(self, run: Run, image: Write, bright: Path) -> None:
        image("a.tif")
        done = run("a.tif", "./a.tif", "--model", bright)
        assert done.code == 2
        assert_one_error(done.err, "a.tif is given twice")

    def test_a_slash_at_the_end_means_into_that_folder(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        image("a.tif")
        for out in ("masks/", "masks/"):  # the second continues the first
            assert run("a.tif", "--model", bright, "--out", out).code == 0
        assert [path.name for path in Path("masks").iterdir()] == ["a.bright.zarr"]

    def test_a_shell_may_complete_the_name_of_a_mask_with_a_slash(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        image("a.tif")
        for out in ("x.zarr/", "mask", "mask/"):
            assert run("a.tif", "--model", bright, "--out", out).code == 0
        assert labels("x.zarr").shape == labels("mask").shape == (40, 60)
        assert not list(Path().rglob("a.bright.zarr"))

    def test_a_refused_command_leaves_no_folder(self, run: Run, image: Write, bright: Path) -> None:
        image("a.tif")
        image("b.tif")
        images = ("a.tif", "b.tif", "--model", bright, "--out", "masks")
        assert run(*images, "--preview", "p.png").code == 2
        assert not Path("masks").exists()
        assert run(*images, "--preview", ".png").code == 0
        assert Path("masks").exists()

    def test_out_must_not_be_a_file_or_a_mask(self, run: Run, image: Write, bright: Path) -> None:
        image("a.tif")
        image("b.tif")
        Path("taken").write_text("mine")
        done = run("a.tif", "b.tif", "--model", bright, "--out", "taken")
        assert done.code == 2
        assert_one_error(done.err, "--out taken is a file")
        assert run("a.tif", "--model", bright, "--out", "one.zarr").code == 0
        done = run("a.tif", "b.tif", "--model", bright, "--out", "one.zarr")
        assert done.code == 2
        assert_one_error(done.err, "--out one.zarr is a mask")

    def test_an_ending_writes_a_file_beside_each_mask(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        image("a.tif")
        image("b.1.tif", np.full((30, 50), 200, np.uint8))
        done = run(
            *("a.tif", "b.1.tif", "--model", bright, "--out", "masks", "--report", ".json"),
            *("--also", ".ome.tif", "--also", "tif", "--also", "GeoJSON", "--preview", "png"),
        )
        assert done.code == 0
        for name, shape in (("a.bright", (40, 60)), ("b.1.bright", (30, 50))):
            mask = labels(f"masks/{name}.zarr")
            for ending in ("ome.tif", "tif"):
                np.testing.assert_array_equal(tifffile.imread(f"masks/{name}.{ending}"), mask)
                assert mask.shape == shape
                assert str(Path("masks", f"{name}.{ending}")) in done.out
            assert json.loads(Path(f"masks/{name}.json").read_text())["shape"] == list(shape)
            found = json.loads(Path(f"masks/{name}.geojson").read_text())["features"]
            assert found[0]["properties"]["classification"]["color"] == [240, 228, 66]
            assert Path(f"masks/{name}.png").is_file()
        assert len(list(Path("masks").iterdir())) == 2 * 6

    @pytest.mark.parametrize(
        "option",
        [["--preview", "p.png"], ["--report", "r.json"], ["--also", "m.ome.tif"]],
    )
    def test_one_file_for_several_images_is_refused_with_the_ending_that_works(
        self, run: Run, image: Write, bright: Path, option: list[str]
    ) -> None:
        image("a.tif")
        image("b.tif")
        done = run("a.tif", "b.tif", "--model", bright, *option)
        assert done.code == 2
        ending = option[1][option[1].index(".") :]
        assert_one_error(done.err, "one file for 2 images", f"use {option[0]} {ending} for one")
        assert not list(Path().glob("*.zarr"))

    def test_a_file_beside_a_mask_never_overwrites_one_of_the_images(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        image("a.tif")
        other = image("a.bright.tif").read_bytes()
        done = run("a.tif", "a.bright.tif", "--model", bright, "--also", "tif")
        assert done.code == 2
        assert_one_error(done.err, "--also tif would overwrite a.bright.tif")
        assert Path("a.bright.tif").read_bytes() == other

    def test_an_error_is_told_once_and_named_at_the_end(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        image("a.tif")
        Path("b.tif").write_bytes(b"II*\0 this is no image")
        done = run("a.tif", "b.tif", "--model", bright, "--quiet")
        first, last = done.err.splitlines()
        assert first.startswith("error: b.tif")
        assert last == "error: 1 of 2 images failed: b.tif"

    def test_an_unfinished_mask_is_told(self, run: Run, image: Write, never_a_number: Path) -> None:
        image("a.tif", np.full((30, 50), 200, np.uint8))
        pixels = np.full((10, 3000), 200, np.uint8)
        pixels[:, 2500:] = 0
        image("b.tif", pixels)
        Path("c.tif").write_text("not pixels")
        done = run("a.tif", "b.tif", "c.tif", "--model", never_a_number)
        assert done.code == 1
        (line,) = (line for line in done.err.splitlines() if "unfinished" in line)
        assert line.startswith("note: b.nan.zarr is unfinished")
        assert "the same command continues it, and --overwrite starts again" in line
        again = run("b.tif", "--model", never_a_number, "--overwrite")
        assert "the same command without --overwrite continues it" in again.err

    def test_of_a_mask_without_a_finished_block_nothing_is_left_or_told(
        self, run: Run, image: Write, never_a_number: Path
    ) -> None:
        image("b.tif", np.zeros((30, 50), np.uint8))
        done = run("b.tif", "--model", never_a_number)
        assert "returned NaN" in done.err
        assert "unfinished" not in done.err
        assert not Path("b.nan.zarr").exists()

    def test_a_missing_network_is_told_once(self, run: Run, image: Write) -> None:
        image("a.tif")
        image("b.tif")
        done = run("a.tif", "b.tif", "--model", "missing.onnx")
        assert done.code == 1
        assert_one_error(done.err, "missing.onnx")


class TestBadInput:
    def test_a_missing_image(self, run: Run, bright: Path) -> None:
        done = run("missing.tif", "--model", bright)
        assert done.code == 1
        assert_one_error(done.err, "missing.tif does not exist")

    def test_a_pattern_that_no_shell_has_replaced(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        assert_one_error(run("*.tif", "--model", bright).err, "no file matches *.tif")
        image("a.tif")
        assert run("*.tif", "--model", bright).code == 0
        Path("a.txt").write_text("")
        assert_one_error(run("*.txt", "--model", bright).err, "1 files", "without quotes")
        image("[1].tif")
        assert run("[1].tif", "--model", bright).code == 0

    def test_a_file_that_is_no_image(self, run: Run, bright: Path) -> None:
        Path("notes.tif").write_text("not pixels")
        done = run("notes.tif", "--model", bright)
        assert done.code == 1
        assert_one_error(done.err, "notes.tif is not an image")
        assert not Path("notes.bright.zarr").exists()

    def test_a_wrong_number_of_channels_says_how_to_choose(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        done = run(image("slide.tif", np.zeros((9, 9, 3), np.uint8)), "--model", bright)
        assert done.code == 2
        assert_one_error(done.err, "has 3 channels", "takes 1", "--channels 0")

    def test_a_missing_network_and_one_that_is_none(self, run: Run, image: Write) -> None:
        done = run(image(), "--model", "missing.onnx")
        assert done.code == 1
        assert_one_error(done.err, "missing.onnx")
        Path("text.onnx").write_text("hello")
        done = run(image(), "--model", "text.onnx")
        assert done.code == 1
        assert_one_error(done.err, "text.onnx")

    def test_an_output_that_is_something_else_is_left_alone(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        Path("file").write_text("mine")
        Path("folder").mkdir()
        Path("folder/file").write_text("mine")
        for out in ("file", "folder"):
            done = run(image(), "--model", bright, "--out", out, "--overwrite")
            assert done.code == 1
            assert_one_error(done.err, out, "--out")
        assert "name a mask inside it: --out folder/slide.bright.zarr" in done.err
        assert Path("file").read_text() == Path("folder/file").read_text() == "mine"

    def test_a_folder_that_is_read_only_names_out(
        self, run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.access", lambda *_, **__: False)  # root may write anywhere
        done = run(image(), "--model", bright)
        assert done.code == 1
        assert_one_error(done.err, "cannot be written to", "--out")
        assert not Path("slide.bright.zarr").exists()

    def test_a_folder_that_cannot_be_made_names_out(
        self, run: Run, image: Write, bright: Path
    ) -> None:
        Path("file").write_text("mine")
        done = run(image(), "--model", bright, "--out", "file/mask.zarr")
        assert done.code == 1
        assert_one_error(done.err, "/file", "--out")

    def test_a_gpu_that_is_not_there(
        self, run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tile_infer.engine.backends.device.cuda_devices", lambda: 0)
        done = run(image(), "--model", bright, "--device", "cuda:1")
        assert done.code == 1
        assert_one_error(done.err, "--device cuda:1", "0 NVIDIA GPUs", "--device cpu")

    def test_nan_from_the_network_fails_with_block_and_count(
        self, run: Run, image: Write, never_a_number: Path
    ) -> None:
        pixels = np.full((40, 60), 200, np.uint8)
        pixels[:25] = 0
        done = run(image("slide.tif", pixels), "--model", never_a_number)
        assert done.code == 1
        error = done.err.splitlines()[-1]
        assert error.startswith("error: nan returned NaN or infinity for 1500 pixels of block 0")
        again = run("slide.tif", "--model", never_a_number)
        assert (again.code, again.out) == (1, "")

    def test_a_level_that_is_not_there(self, run: Run, image: Write, bright: Path) -> None:
        done = run(image(), "--model", bright, "--level", "3")
        assert done.code == 2
        assert_one_error(done.err, "--level 3", "its levels: 0 (40 x 60 px)")

    def test_a_threshold_for_two_classes(self, run: Run, image: Write, bright: Path) -> None:
        done = run(image(), "--model", bright, "--threshold", "0.4")
        assert done.code == 2
        assert_one_error(done.err, "--threshold 0.4", "2 classes")


def test_options_change_the_mask(run: Run, image: Write, tmp_path: Path) -> None:
    one = write_network(tmp_path / "one.onnx", [[[[1.0]]]], (0.0,))
    pixels = np.array([[0, 50, 100, 150, 200, 250]], np.uint8)
    command = [image("slide.tif", pixels), "--model", one, "--activation", "none", "--overwrite"]
    assert run(*command, "--threshold", "0.5").code == 0
    assert labels("slide.one.zarr").tolist() == [[0, 0, 0, 1, 1, 1]]
    assert run(*command, "--threshold", "0.25").code == 0
    assert labels("slide.one.zarr").tolist() == [[0, 0, 1, 1, 1, 1]]
    assert run(*command, "--threshold", "0.25", "--mean", "0.5", "--std", "1").code == 0
    assert labels("slide.one.zarr").tolist() == [[0, 0, 0, 0, 1, 1]]


def test_probabilities_are_stored_if_asked_for(run: Run, image: Write, bright: Path) -> None:
    assert run(image(), "--model", bright, "--output", "probabilities").code == 0
    stored = zarr.open_array("slide.bright.zarr/probabilities", mode="r")
    assert (stored.shape, stored.dtype.name) == ((2, 40, 60), "float16")


def test_blend_and_overlap_reach_the_plan(run: Run, image: Write, same_padded_mean: Path) -> None:
    command = [image(), "--model", same_padded_mean, "--report", "r.json"]
    assert run(*command, "--blend", "gaussian", "--overlap", "0.5", "--tile", "16x32").code == 0
    plan = json.loads(Path("r.json").read_text())["plan"]
    assert (plan["blend"], plan["exact"], plan["tile"]) == ("gaussian", False, [16, 32])


def test_the_mask_is_written_in_other_formats_as_well(
    run: Run, image: Write, bright: Path, tmp_path: Path
) -> None:
    also = [tmp_path / name for name in ("mask.ome.tif", "mask.tif", "mask.geojson")]
    options = [option for path in also for option in ("--also", path)]
    picture = image("slide.tif")
    assert run(picture, "--model", bright, "--out", tmp_path / "m.zarr", *options).code == 0
    stored = zarr.open_group(tmp_path / "m.zarr", mode="r")["0"]
    assert isinstance(stored, zarr.Array)
    for path in also[:2]:
        np.testing.assert_array_equal(tifffile.imread(path), stored[:])
    assert json.loads(also[2].read_text())["type"] == "FeatureCollection"
    refused = run(picture, "--model", bright, "--out", tmp_path / "n.zarr", "--also", "mask.xyz")
    assert refused.code == 2
    assert not (tmp_path / "n.zarr").exists()


@pytest.mark.parametrize(("network", "scale"), [("halving", 0.5), ("doubling", 2)])
def test_files_beside_a_mask_of_another_scale_lie_on_the_image(
    run: Run, tmp_path: Path, request: pytest.FixtureRequest, network: str, scale: float
) -> None:
    pixels = np.zeros((40, 60), np.uint8)
    pixels[10:20, 30:50] = 255
    tifffile.imwrite("slide.tif", pixels, resolution=(1e4 / 0.5, 1e4 / 0.5), resolutionunit=3)
    model = request.getfixturevalue(network)
    also = ("--also", "ome.tif", "--also", "geojson", "--preview", "png")
    assert run("slide.tif", "--model", model, "--out", "m.zarr", *also).code == 0
    assert labels("m.zarr").shape == (40 * scale, 60 * scale)
    with tifffile.TiffFile("m.ome.tif") as tiff:
        assert (tiff.asarray() == labels("m.zarr")).all()
        size = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]["PhysicalSizeX"]
    assert size == 0.5 / scale
    (feature,) = json.loads(Path("m.geojson").read_text())["features"]
    (ring,) = feature["geometry"]["coordinates"]
    assert {x for x, _ in ring} == {30, 50}
    assert {y for _, y in ring} == {10, 20}
    picture = imagecodecs.png_decode(Path("m.png").read_bytes())
    assert picture.shape == (40, 60, 3)
    assert ((picture != 0).any(axis=2) == (pixels != 0)).all()
