from pathlib import Path

import pytest

from .conftest import Run, Write


def assert_one_error(err: str, *parts: str) -> None:
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (["slide.tif"], ["--model is missing"]),
        (["slide.tif", "--model"], ["--model is missing"]),
        (["slide.tif", "--model", "m.onnx", "--modle", "x"], ["--modle", "--model"]),
        (["--model", "m.onnx"], ["an image is missing", "tile-infer slide.tif"]),
        (["plan", "--model", "m.onnx"], ["IMAGE is missing", "tile-infer plan --help"]),
        (
            ["plan", "a.tif", "b.tif", "c.tif", "--model", "m.onnx"],
            ["tile-infer plan takes one image, so b.tif, c.tif cannot follow", "run it for each"],
        ),
        (["inspect", "a.onnx", "b.onnx"], ["tile-infer inspect takes one model, so b.onnx"]),
        (["inspect"], ["MODEL is missing", "tile-infer inspect --help"]),
        (["inspect", "m.onnx", "--channels", "0"], ["--channels 0", "use 1 or more"]),
    ],
)
def test_wrong_usage_is_told_in_one_line_and_exits_2(
    run: Run, tokens: list[str], parts: list[str]
) -> None:
    done = run(*tokens)
    assert (done.code, done.out) == (2, "")
    assert_one_error(done.err, *parts)


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (["--level", "x"], ["--level", '"x"']),
        (["--precision", "fp8"], ["--precision", "fp32", "bf16"]),
        (["--normalize", "minmax"], ["--normalize", "zscore"]),
        (["--memory", "4ZB"], ["--memory", "4ZB", "4GB"]),
        (["--tile", "5x"], ["--tile", "572x640"]),
        (["--channels", "red"], ["--channels", "0,1,2"]),
        (["--device", "gpu"], ["--device", "cuda:N"]),
        (["--threshold", "3"], ["--threshold 3.0", "0 < threshold < 1"]),
        (["--batch-size", "0"], ["--batch-size 0", "1 or more"]),
        (["--mean", "0.5"], ["--mean and --std go together"]),
        (["--overlap", "0.5"], ["--overlap needs --blend", "give --blend as well"]),
        (["--halo", "8", "--tolerance", "0.1"], ["--halo and --tolerance contradict"]),
        (["--blend", "hann", "--halo", "8"], ["--halo and --tolerance contradict it"]),
        (["--mpp", "1", "--level", "0"], ["--mpp and --level contradict"]),
        (["--tile", "0"], ["--tile 0x0"]),
        (["--memory", "4"], ["--memory", "4 bytes", "4GB"]),
        (["--preview", "p.jpg"], ["--preview p.jpg", ".png"]),
        (["--report", "nowhere/r.json"], ["--report nowhere/r.json", "does not exist"]),
        (["--also", "mask.xyz"], ["--also mask.xyz", ".ome.tif or", ".geojson"]),
        (["--also", "folder/tif"], ["--also folder/tif", "not known"]),
        (["--also", "missing.tif"], ["--also missing.tif would overwrite missing.tif"]),
        (["--out", "missing.zarr", "--also", "tif"], ["--also tif would overwrite missing.tif"]),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_opened(
    run: Run, tmp_path: Path, tokens: list[str], parts: list[str]
) -> None:
    done = run("missing.tif", "--model", "missing.onnx", *tokens)
    assert done.code == 2
    assert_one_error(done.err, *parts)
    assert list(tmp_path.iterdir()) == []


def test_no_arguments_show_the_help_and_exit_2(run: Run) -> None:
    done = run()
    assert done.code == 2
    assert "Usage: tile-infer IMAGE... --model MODEL" in done.out


@pytest.mark.parametrize("command", [[], ["plan"], ["inspect"], ["demo"], ["train"], ["score"]])
def test_help_is_a_success(run: Run, command: list[str]) -> None:
    done = run(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert "--verbose" in done.out
    assert ("--tile HxW" in done.out) == (command in ([], ["plan"]))


def test_version_is_printed(run: Run) -> None:
    from tile_infer import __version__

    done = run("--version")
    assert (done.code, done.out.strip()) == (0, __version__)


def test_a_file_named_like_a_subcommand_is_given_with_its_folder(
    run: Run, image: Write, bright: Path
) -> None:
    image("demo")
    done = run("./demo", "--model", bright)
    assert done.code == 0
    assert Path("demo.bright.zarr").is_dir()


def test_an_unexpected_exception_is_one_line_and_a_traceback_only_if_asked(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("[oops]")

    monkeypatch.setattr("tile_infer.cli.segment.predict", broken)
    done = run(image(), "--model", bright)
    assert done.code == 1
    assert_one_error(done.err, "internal error: KeyError", "[oops]", "--verbose")
    loud = run(image(), "--model", bright, "--verbose")
    assert loud.code == 1
    assert "Traceback" in loud.err


def test_a_full_disk_is_told_without_a_traceback(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "slide.bright.zarr")

    monkeypatch.setattr("tile_infer.cli.segment.predict", full)
    done = run(image(), "--model", bright)
    assert done.code == 1
    assert_one_error(done.err, "slide.bright.zarr: No space left on device")
