"""Several images in one command: one begins while another ends, and each is told of in order."""

import signal
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.cli import several
from tile_infer.cli.overlap import Piece
from tile_infer.engine import block
from tile_infer.engine import predict as engine
from tile_infer.engine.certificate import certify
from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.request import read_whole
from tile_infer.engine.stitcher.mask import Mask
from tile_infer.tiler.errors import DeviceError, ImageError, OutputError, TileInferWarning

from ..exactness.run_plan import tree
from .conftest import Run, Write, write_network
from .test_interrupt import PROGRAM, start
from .test_usage import assert_one_error

TILES = ("--tile", "300", "--workers", "2")
"""So that an image of `noise` has several blocks."""


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (2200, 1900 + seed), np.uint8)


class Watch:
    """Lets the last block of a.tif be written only once b.tif is read, or time is up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
        self.read, self.waited = Event(), list[bool]()
        write = Mask.write

        def watched_read(source: Any, *given: Any) -> Any:
            if source.facts.name == "b.tif":
                self.read.set()
            return read_whole(source, *given)

        def watched_write(mask: Mask, record: Any, *given: Any) -> None:
            last = record.block == mask.plan.grid.blocks - 1
            if mask.plan.image.name == "a.tif" and last:
                self.waited.append(self.read.wait(patience))
            write(mask, record, *given)

        monkeypatch.setattr(block, "read_whole", watched_read)
        monkeypatch.setattr(Mask, "write", watched_write)


def test_the_next_image_is_read_before_the_last_block_of_one_is_written(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image("a.tif", noise(0))
    image("b.tif", noise(1))
    watch = Watch(monkeypatch, patience=60)
    done = run("a.tif", "b.tif", "--model", bright, *TILES)
    assert (done.code, watch.waited) == (0, [True])


def test_with_one_at_a_time_it_is_not(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image("a.tif", noise(0))
    image("b.tif", noise(1))
    watch = Watch(monkeypatch, patience=0.2)
    monkeypatch.setattr(several, "AT_ONCE", 1)
    done = run("a.tif", "b.tif", "--model", bright, *TILES)
    assert (done.code, watch.waited) == (0, [False])


@pytest.mark.parametrize("options", [(), ("--normalize", "zscore"), ("--verify", "0.5")])
def test_masks_are_those_of_single_runs_to_the_byte(
    run: Run, image: Write, bright: Path, options: tuple[str, ...]
) -> None:
    names = [f"{number}.tif" for number in range(4)]
    for number, name in enumerate(names):
        image(name, noise(number) if number != 2 else noise(2)[:50, :70])
    common = ("--model", bright, *TILES, *options)
    assert run(*names, *common, "--out", "together").code == 0
    assert_as_alone(run, names, common, ".bright.zarr")


def assert_as_alone(run: Run, names: list[str], common: tuple[Any, ...], ending: str) -> None:
    """Check that the masks in ``together`` have the bytes of a command for each image."""
    for name in names:
        mask = Path(name).with_suffix(ending)
        assert run(name, *common, "--out", f"alone/{mask}").code == 0
        assert tree(Path("together") / mask) == tree(Path("alone") / mask)


def test_a_module_is_run_for_one_image_after_the_other(
    run: Run, image: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    program = torch.export.export(torch.nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 302, 302),))
    torch.export.save(program, tmp_path / "net.pt2")
    names = [f"{number}.tif" for number in range(3)]
    for number, name in enumerate(names):
        image(name, noise(number))
    names_seen, settle = list[str](), engine._settle

    def planned(*given: Any) -> Any:
        names_seen.append(f"plan {given[1].facts.name}")
        return settle(*given)

    def certified(plan: Any, *given: Any, **named: Any) -> Any:
        names_seen.append(f"certify {plan.image.name}")
        return certify(plan, *given, **named)

    monkeypatch.setattr(engine, "_settle", planned)
    monkeypatch.setattr(engine, "certify", certified)
    common = ("--model", "net.pt2", "--trust-model", "--workers", "2")
    assert run(*names, *common, "--out", "together").code == 0
    assert names_seen == [f"{what} {name}" for name in names for what in ("plan", "certify")]
    assert_as_alone(run, names, common, ".net.zarr")


def test_what_is_said_of_an_image_is_one_piece_in_the_order_of_the_images(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image("a.tif", noise(0))
    Path("b.tif").write_text("no image")
    image("c.tif", noise(1))
    image("d.tif", noise(2))
    warned, predict = Event(), engine.predict

    def warning(path: Path, *given: Any, **named: Any) -> Any:
        done = predict(path, *given, **named)
        if path.name == "c.tif":  # the next one warns first
            assert warned.wait(60)
        warnings.warn(f"of {path.name}", TileInferWarning, stacklevel=2)
        if path.name == "d.tif":
            warned.set()
        return done

    monkeypatch.setattr("tile_infer.cli.segment.predict", warning)
    images = ("a.tif", "b.tif", "c.tif", "d.tif")
    done = run(*images, "--model", bright, *TILES)
    told = [line.split(" (")[0] for line in done.err.splitlines()]
    assert told == [
        "note: uint8 divided by 255",
        "warning: of a.tif",
        "error: b.tif is not an image of a known kind",
        "note: uint8 divided by 255",
        "warning: of c.tif",
        "note: uint8 divided by 255",
        "warning: of d.tif",
        "error: 1 of 4 images failed: b.tif",
    ]
    assert done_names(done.out) == ["a.bright.zarr", "c.bright.zarr", "d.bright.zarr"]


def failing_once(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, times: int = 1
) -> list[str]:
    """Let an image fail to open so often; return the list of what is opened."""
    opened = list[str]()

    def open_or_fail(path: Path, **options: Any) -> Any:
        opened.append(path.name)
        if path.name == name and opened.count(name) <= times:
            raise error
        return open_source(path, **options)

    monkeypatch.setattr(engine, "open_source", open_or_fail)
    return opened


def test_what_may_have_failed_for_want_of_memory_is_tried_again_alone(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.tif", "b.tif")):
        image(name, noise(number))
    ended = Event()
    predict = engine.predict

    def slow(path: Path, *given: Any, **named: Any) -> Any:
        done = predict(path, *given, **named)
        if path.name == "a.tif":
            assert failed.wait(60)
            ended.set()
        return done

    failed = Event()
    opened = list[bool]()

    def open_or_fail(path: Path, **options: Any) -> Any:
        if path.name == "b.tif":
            opened.append(ended.is_set())
            if not ended.is_set():
                failed.set()
                raise ImageError("b.tif needs 2 GB and 1 GB are free; get more")
        return open_source(path, **options)

    monkeypatch.setattr(engine, "open_source", open_or_fail)
    monkeypatch.setattr("tile_infer.cli.segment.predict", slow)
    done = run("a.tif", "b.tif", "--model", bright, *TILES)
    assert (done.code, opened) == (0, [False, True])
    assert "error" not in done.err


def test_it_is_tried_again_though_the_one_before_has_ended_meanwhile(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.tif", "b.tif")):
        image(name, noise(number))
    begun, opened, pieces = Event(), list[bool](), list[Piece[Any]]()
    predict, come_first = engine.predict, Piece.come_first

    def slow(path: Path, *given: Any, **named: Any) -> Any:
        done = predict(path, *given, **named)
        assert path.name != "a.tif" or begun.wait(60)
        return done

    def told(piece: Piece[Any]) -> None:
        come_first(piece)
        pieces.append(piece)

    def open_or_fail(path: Path, **options: Any) -> Any:
        if path.name == "b.tif":
            begun.set()
            opened.append(True)
            if len(opened) == 1:
                while len(pieces) < 2:
                    sleep(0.01)
                raise ImageError("b.tif needs 2 GB and 1 GB are free; get more")
        return open_source(path, **options)

    monkeypatch.setattr(Piece, "come_first", told)
    monkeypatch.setattr(engine, "open_source", open_or_fail)
    monkeypatch.setattr("tile_infer.cli.segment.predict", slow)
    done = run("a.tif", "b.tif", "--model", bright, *TILES)
    assert (done.code, len(opened)) == (0, 2)


def test_what_fails_again_is_told_once(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.tif", "b.tif", "c.tif")):
        image(name, noise(number))
    error = ImageError("b.tif needs 2 GB and 1 GB are free; get more")
    failing_once(monkeypatch, "b.tif", error, times=2)
    done = run("a.tif", "b.tif", "c.tif", "--model", bright, *TILES, "--quiet")
    assert done.code == 1
    assert done.err.splitlines() == [f"error: {error}", "error: 1 of 3 images failed: b.tif"]


def test_an_image_that_failed_holds_nothing_while_the_next_is_planned(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.tif", "b.tif")):
        image(name, noise(number))
    held, predict = list[Any](), engine.predict

    def fail() -> None:
        runner = noise(0)
        held.append(weakref.ref(runner))
        raise RuntimeError("fell off the bus")

    def watched(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == "b.tif":
            assert held[0]() is None
            return predict(path, *given, **named)
        try:
            fail()
        except RuntimeError as error:
            raise ImageError("a.tif fell off the bus") from error

    monkeypatch.setattr("tile_infer.cli.segment.predict", watched)
    done = run("a.tif", "b.tif", "--model", bright, *TILES)
    assert (done.code, done_names(done.out)) == (1, ["b.bright.zarr"])


def test_an_output_that_fails_is_not_tried_again(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.tif", "b.tif")):
        image(name, noise(number))
    opened = failing_once(monkeypatch, "b.tif", OutputError("full"))
    assert run("a.tif", "b.tif", "--model", bright, *TILES).code == 1
    assert opened.count("b.tif") == 1


def test_a_device_that_cannot_be_had_ends_the_command(
    run: Run, image: Write, bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("a.tif", "b.tif", "c.tif")):
        image(name, noise(number))
    opened = failing_once(monkeypatch, "b.tif", DeviceError("no GPU"), times=9)
    done = run("a.tif", "b.tif", "c.tif", "--model", bright, *TILES, "--quiet")
    assert (done.code, done.err) == (1, "error: no GPU\n")
    assert "c.bright.zarr" not in {path.name for path in Path().iterdir()}
    assert "b.tif" in opened


def test_the_end_is_a_table_of_all_images(run: Run, image: Write, bright: Path) -> None:
    image("a.tif")
    image("longer.tif", np.zeros((100, 200), np.uint8))
    Path("b.tif").write_text("no image")
    done = run("a.tif", "b.tif", "longer.tif", "--model", bright, "--out", "masks")
    *_, first, second, third, last = done.out.splitlines()
    assert first.split()[:5] == ["a.tif", "40", "x", "60", "px"]
    assert first.endswith(f" s  {Path('masks/a.bright.zarr')}")
    assert second.split()[:2] == ["b.tif", "failed"]
    assert second.endswith("JPEG 2000, BMP, zipped Zarr and Zarr)")  # without "; convert it"
    assert third.split()[:5] == ["longer.tif", "100", "x", "200", "px"]
    columns = {
        line.index(text) for line, text in ((first, "40 x"), (second, "failed"), (third, "100"))
    }
    assert len(columns) == 1
    assert last.startswith("2 of 3 images done: 0.0 MPix in ")


def kinds(folder: Path, image: Write) -> list[Path]:
    folder.mkdir()
    names = ["10.tif", "2.TIFF", "b.png"]
    for name in names[:2]:
        image(str(folder / name))
    (folder / "b.png").write_bytes(b"\x89PNG")
    (folder / "notes.txt").write_text("")
    (folder / "._10.tif").write_text("")
    return [folder / name for name in names]


def done_names(out: str) -> list[str]:
    return [
        Path(line).name for line in out.splitlines() if line.endswith(".zarr") and line[0] != " "
    ]


@pytest.mark.parametrize("given", ["slides", "slides/*", "./slides"])
def test_a_folder_and_a_pattern_stand_for_their_images_by_name(
    run: Run, image: Write, bright: Path, given: str
) -> None:
    kinds(Path("slides"), image)
    done = run(given, "--model", bright)
    assert done.code == 1  # one is broken
    assert done_names(done.out) == ["10.bright.zarr", "2.bright.zarr"]
    assert "1 of 3 images failed: slides/b.png" in done.err.replace("\\", "/")
    assert f"note: {Path(given)}: 3 images" in done.err


def test_masks_and_what_lies_beside_them_are_no_images_of_a_folder(
    run: Run, image: Write, bright: Path
) -> None:
    for name in ("a.tif", "b.tif"):
        Path("slides").mkdir(exist_ok=True)
        image(f"slides/{name}")
    command = ("slides", "--model", bright, "--also", ".ome.tif", "--preview", ".png")
    first = run(*command, "--report", ".json")
    assert first.code == 0
    assert len(list(Path("slides").iterdir())) == 2 * 5
    again = run(*command)
    assert again.code == 0
    assert done_names(again.out) == ["a.bright.zarr", "b.bright.zarr"]
    assert "slides: 2 images, without 6 of masks" in again.err


def test_a_zarr_folder_is_an_image_and_one_of_a_folder(
    run: Run, bright: Path, image: Write
) -> None:
    import zarr

    array = zarr.create_array("slides/z.zarr", shape=(30, 40), dtype="u1", chunks=(16, 16))
    array[:] = np.arange(1200).reshape(30, 40).astype(np.uint8)
    assert "images" not in run("slides/z.zarr", "--model", bright, "--out", "one.zarr").err
    image("slides/a.tif")
    done = run("slides", "--model", bright, "--out", "masks")
    assert (done.code, done_names(done.out)) == (0, ["a.bright.zarr", "z.bright.zarr"])


def test_a_folder_of_one_image_has_its_masks_in_a_folder_too(
    run: Run, image: Write, bright: Path
) -> None:
    Path("slides").mkdir()
    image("slides/a.tif")
    assert run("slides", "--model", bright, "--out", "masks").code == 0
    assert [path.name for path in Path("masks").iterdir()] == ["a.bright.zarr"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("*.tif", ["no file matches *.tif; check the path"]),
        ("*.txt", ["*.txt matches 1 files, of which none is an image by its name"]),
        ("empty", ["empty is a folder without images"]),
    ],
)
def test_where_no_image_is_found_one_line_says_so(
    run: Run, bright: Path, given: str, told: list[str]
) -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("")
    done = run(given, "--model", bright)
    assert done.code == 1
    assert_one_error(done.err, *told)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_images_where_the_same_command_continues(
    tmp_path: Path, number: signal.Signals, code: int, slow_images: list[str]
) -> None:
    process = start(slow_images, tmp_path)
    wait_for(process, lambda: list(tmp_path.glob("masks/b.slow.zarr/0/c/*/*")))
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "finished blocks are kept; the same command continues" in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("masks/*/tile_infer/lock*"))
    assert not (tmp_path / "masks/c.slow.zarr").exists()
    before = chunks(tmp_path / "masks")
    again = subprocess.run(slow_images, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    after = chunks(tmp_path / "masks")
    assert before.items() <= after.items()
    assert len(before) < len(after)
    whole = [*slow_images[:-1], "other"]
    assert subprocess.run(whole, cwd=tmp_path, capture_output=True).returncode == 0
    assert chunks(tmp_path / "other") == after


@pytest.fixture
def slow_images(tmp_path: Path) -> list[str]:
    """A command line that takes a few seconds for each of three images."""
    weights = np.random.default_rng(0).standard_normal((2, 1, 41, 41)) / 41
    write_network(tmp_path / "slow.onnx", weights, (0.0, 0.0))
    for seed, name in enumerate(("a.tif", "b.tif", "c.tif")):
        height = 1300 if seed == 0 else 2600
        pixels = np.random.default_rng(seed).integers(0, 256, (height, 1300), np.uint8)
        tifffile.imwrite(tmp_path / name, pixels, tile=(256, 256))
    options = ["--model", "slow.onnx", "--workers", "1", "--tile", "340", "--out", "masks"]
    return [*PROGRAM, "a.tif", "b.tif", "c.tif", *options]


def wait_for(process: "subprocess.Popen[str]", there: Callable[[], object]) -> None:
    for _ in range(3000):
        if there():
            return
        assert process.poll() is None, process.communicate()
        Event().wait(0.02)
    raise AssertionError("it never came")


def chunks(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/?/c/*/*")}
