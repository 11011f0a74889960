"""Whatever fails ends a run with one line, nothing is marked done that is not, and it continues."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zarr.core import sync as zarr_sync
from zarr.storage import MemoryStore, _local

from tile_infer import OutputError, Plan, TileInferError
from tile_infer.cli.main import main
from tile_infer.engine import planning
from tile_infer.engine import predict as predict_module
from tile_infer.engine.backends.base import Network, Output, Runner
from tile_infer.engine.backends.onnx import OnnxRunner
from tile_infer.engine.pipeline import Clock
from tile_infer.engine.predict import predict
from tile_infer.engine.ready import make_ready
from tile_infer.engine.settings import Settings
from tile_infer.engine.sources import SegmentedSource, Source
from tile_infer.engine.stitcher import mask as mask_module
from tile_infer.engine.stitcher import pyramid
from tile_infer.tiler.grid import Grid

from .faults import FILE_SITES, MEMORY_SITES, SITES, Fault, Happened, counted, let_in
from .run_plan import tree
from .seeded_networks import export, textured

# An ending of zarr's thread, which goes on, cuts off what it had only just begun.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("collected"),
]

T = TypeVar("T")

SHAPE = (180, 250)
"""Three by four blocks of two by two chunks, with one level made by blocks and two by the end."""

HANGS_SECONDS = 30

COMPANIONS = ("m.ome.tif", "m.tif", "m.geojson", "m.png")


def with_small_blocks(
    source: Source, network: Network, settings: Settings, tried: bool
) -> tuple[Plan, Runner]:
    plan, run = make_ready(source, network, settings, tried)
    if isinstance(source, SegmentedSource):  # what was read for statistics is read once more
        source.cache._segments.clear()
        source.cache.held_bytes = 0
    axes = (replace(a, chunk=a.core, block=2 * a.core) for a in (plan.grid.y, plan.grid.x))
    return replace(plan, grid=Grid(*axes)), run


@dataclass(frozen=True)
class Ran:
    """What a command line gave."""

    code: int
    err: str
    happened: Happened

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@dataclass(frozen=True)
class World:
    """A slide, a network, and what comes of them when nothing fails."""

    folder: Path
    counts: dict[str, int]
    """Calls of each site."""
    whole: dict[str, bytes]

    def command(self, out: Path) -> list[str]:
        also = [token for name in COMPANIONS[:3] for token in ("--also", out / name)]
        tokens = [
            *(self.folder / "slide.tif", "--model", self.folder / "net.onnx"),
            *("--out", out / "m.zarr", "--tile", "36", "--workers", "2", "--normalize", "zscore"),
            *(*also, "--preview", out / "m.png", "--report", out / "m.json"),
        ]
        return [str(token) for token in tokens]

    def run(self, out: Path, fault: Fault | None = None) -> Ran:
        """Run the command, which may fail but must end."""
        return in_time(lambda: self._run(out, fault))

    def _run(self, out: Path, fault: Fault | None) -> Ran:
        err, command = io.StringIO(), self.command(out)
        with redirect_stderr(err), redirect_stdout(io.StringIO()):
            if fault is None:
                return Ran(main(command), err.getvalue(), Happened())
            with let_in(fault, self.counts[fault.site]) as happened:
                code = main(command)
        return Ran(code, err.getvalue(), happened)


def in_time(run: Callable[[], T]) -> T:
    """Return what a run gives; it must neither hang nor raise."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(run()), name="command", daemon=True)
    thread.start()
    thread.join(HANGS_SECONDS)
    assert not thread.is_alive(), "no end"
    assert found, "a traceback"
    return found[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let plans have small blocks, and masks levels in spite of their size."""
    cache = str(tmp_path_factory.mktemp("cache"))
    with (
        patch.dict(os.environ, {"TILE_INFER_CACHE": cache}),
        patch.object(predict_module, "make_ready", with_small_blocks),
        patch.object(pyramid, "SMALLEST_PX", 40),
        patch.object(planning, "WORTH_TILES", sys.maxsize),  # nothing depends on a clock
    ):
        zarr_sync.cleanup_resources()  # its thread is started again by the engine, as in a program
        yield


@pytest.fixture(scope="module")
def world(small: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    pixels = textured(*SHAPE)[:, :, 0]
    tifffile.imwrite(folder / "slide.tif", pixels, tile=(64, 64), compression="zlib")
    torch.manual_seed(0)
    export(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)), folder / "net.onnx", 1)
    whole = folder / "whole"
    whole.mkdir()
    world = World(folder, {}, {})
    with counted() as counts:
        ran = world.run(whole)
    assert ran.code == 0, ran.err
    files = tree(whole)
    report = json.loads(files.pop("m.json"))
    assert (report["plan"]["blocks"], report["plan"]["exact"]) == (12, True)
    assert {name.split("/")[1] for name in files if "/c/" in name} == {*"0123", "tile_infer"}
    assert all(counts[site] for site in FILE_SITES), "there is a call of each that can fail"
    return replace(world, counts=dict(counts), whole=files)


def check_told(ran: Ran, fault: Fault) -> None:
    """Check that a run failed with one line that names stage, file, and block where it is one's."""
    assert ran.code == 1
    assert len(ran.errors) == 1, ran.err
    (line,) = ran.errors
    assert "internal error" not in line
    assert "Traceback" not in ran.err
    assert re.search(r"slide\.tif|net (on|does|gave)|m\.(zarr|ome\.tif|tif|geojson|png|json)", line)
    place = "/".join(map(str, ran.happened.arguments[:1]))
    if fault.kind == "lost":
        assert re.search(r"m\.zarr(: .* gone(, block \d+ first)?;| does not keep )", line)
    elif fault.site == "put" and re.search(r"m\.zarr/([01]|tile_infer/records)/c/", place):
        assert re.search(r"writing .*m\.zarr, block \d+ \(pixels ", line)
    if "m.zarr is complete, but could not be verified: " in line:
        assert fault.site in ("source", "bytes", "network", "prepare", "get", "pixels", "thread")
    elif (ran.happened.thread or "").startswith(("block", "device")):
        assert re.search(r"(reading|running|writing) .*block \d+ \(pixels ", line)


def check_state(out: Path, whole: dict[str, bytes], kinds: Collection[str] = ()) -> None:
    """Check that whatever counts as done, or as whole, is right."""
    there = tree(out)
    for name in COMPANIONS:
        assert there.get(name, whole[name]) == whole[name], name
    chunks = {name: data for name, data in chunks_of(there).items() if ".partial" not in name}
    if "lost" in kinds:  # levels that no block makes count only once a mask is complete
        chunks = {name: data for name, data in chunks.items() if not re.match("m.zarr/[23]/", name)}
    if "torn" not in kinds:  # half a chunk or record, as a power cut leaves it, is seen by reading
        assert chunks.items() <= whole.items()
    if "complete" in there.get("m.zarr/zarr.json", b"").decode():
        assert chunks_of(whole).keys() <= there.keys()


def check_records(out: Path, whole: dict[str, bytes]) -> None:
    """Check that every chunk is there of a block that has a record."""
    there = tree(out).keys()
    for block in range(12):
        if f"m.zarr/tile_infer/records/c/{block}/0" in there:
            y, x = divmod(block, 4)
            mine = {f"m.zarr/1/c/{y}/{x}"}
            mine |= {f"m.zarr/0/c/{2 * y + i}/{2 * x + j}" for i in (0, 1) for j in (0, 1)}
            assert mine & whole.keys() <= there


def check(world: World, several: list[Fault]) -> None:
    """Let one run after the other fail, and then one go through."""
    with tempfile.TemporaryDirectory() as folder:
        out, kinds = Path(folder), {fault.kind for fault in several}
        for fault in several:
            ran = world.run(out, fault)
            over = ran.happened.thread is None or fault.kind in SITES[fault.site].heals
            if ran.code == 0 and over:
                break
            check_told(ran, fault)
            check_state(out, world.whole, kinds)
            if not kinds & {"torn", "lost"}:
                check_records(out, world.whole)
        ran = world.run(out)
        assert ran.code == 0, ran.err
        check_whole(world, out)


def faults_of(site: str) -> st.SearchStrategy[Fault]:
    kinds = st.sampled_from(sorted(SITES[site].kinds))
    return st.builds(Fault, st.just(site), kinds, st.integers(0, 999), st.booleans())


@pytest.mark.parametrize("site", FILE_SITES)
def test_any_fault_is_told_and_the_same_command_continues(world: World, site: str) -> None:
    any_site = st.sampled_from(sorted(FILE_SITES)).flatmap(faults_of)

    @settings(max_examples=4, deadline=None, derandomize=True, database=None)
    @given(first=faults_of(site), then=st.none() | any_site)
    def whatever_fails(first: Fault, then: Fault | None) -> None:
        check(world, [first, *([] if then is None else [then])])

    whatever_fails()


@pytest.mark.parametrize("kind", SITES["put"].kinds)
def test_every_kind_of_failed_write_is_told(world: World, kind: str) -> None:
    check(world, [Fault("put", kind, 500)])


@pytest.mark.parametrize("write", range(11))
def test_any_of_the_first_writes_can_be_the_last_one(world: World, write: int) -> None:
    """Before the first block metadata is written, which is not written again if it is there."""
    by_number = replace(world, counts={"put": 1000})
    check(by_number, [Fault("put", "EIO", write, lasting=True)])


@pytest.mark.parametrize("site", ["network", "record", "put", "source"])
def test_a_thread_that_dies_is_told_to_the_main_one(
    world: World, tmp_path: Path, site: str
) -> None:
    """Only there an exit could be one that a signal has caused."""
    fault = Fault(site, "dies", 500)
    check_told(world._run(tmp_path, fault), fault)
    assert world.run(tmp_path).code == 0
    check_whole(world, tmp_path)


def test_a_run_that_nothing_happens_to_is_not_taken_for_a_failed_one(world: World) -> None:
    with pytest.raises(AssertionError), tempfile.TemporaryDirectory() as folder:
        check_told(world.run(Path(folder)), Fault("put", "EIO", 0))


IMAGE = textured(*SHAPE)[:, :, 0]


def run_in_memory(world: World, store: MemoryStore) -> Exception | None:
    """Segment an array from Python; return what is raised."""
    try:
        predict(IMAGE, world.folder / "net.onnx", store, Settings(tile=(36, 36)))
    except Exception as error:
        return error
    return None


@pytest.fixture(scope="module")
def whole_in_memory(world: World) -> tuple[dict[str, int], dict[str, bytes]]:
    """Calls of each site, and what is in the store in the end."""
    store = MemoryStore()
    with counted() as counts:
        assert run_in_memory(world, store) is None
    assert all(counts[site] for site in MEMORY_SITES), counts
    return dict(counts), contents(store)


@pytest.mark.parametrize("site", MEMORY_SITES)
def test_any_fault_of_a_store_is_told_and_the_same_call_continues(
    world: World, whole_in_memory: tuple[dict[str, int], dict[str, bytes]], site: str
) -> None:
    counts, expected = whole_in_memory

    @settings(max_examples=10, deadline=None, derandomize=True, database=None)
    @given(fault=faults_of(site))
    def whatever_fails(fault: Fault) -> None:
        store = MemoryStore()

        def faulty() -> tuple[Exception | None, Happened]:
            with let_in(fault, counts[fault.site]) as happened:
                return run_in_memory(world, store), happened

        error, happened = in_time(faulty)
        if error is None:
            assert happened.thread is None or fault.kind in SITES[site].heals
        else:
            assert isinstance(error, TileInferError)
            assert "\n" not in str(error)
            assert re.search(r"array|memory://", str(error))
            if fault.kind not in ("torn", "lost"):
                assert chunks_of(contents(store)).items() <= expected.items()
        assert in_time(lambda: [run_in_memory(world, store)]) == [None]
        assert contents(store) == expected

    whatever_fails()


def contents(store: MemoryStore) -> dict[str, bytes]:
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def chunks_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if "/c/" in name}


VICTIMS = ["0/c/1/1", "1/c/0/0", "tile_infer/records/c/5/0"]


@pytest.mark.parametrize("victim", [*VICTIMS, "2/c/1/1", "3/c/0/0", "0/zarr.json"])
def test_what_vanishes_before_the_end_is_missed(world: World, tmp_path: Path, victim: str) -> None:
    built: list[int] = []

    def vanishes(*arrays: Any) -> int:
        built.append(pyramid.build_level(*arrays))
        if len(built) == 2:
            (tmp_path / "m.zarr" / victim).unlink()
        return built[-1]

    with patch.object(mask_module, "build_level", vanishes):
        ran = world.run(tmp_path)
    assert len(built) == 2
    assert ran.code == 1
    assert re.search(r"m\.zarr: (1 blocks|files) that were written are gone.*; run again$", ran.err)
    assert not any((tmp_path / name).exists() for name in COMPANIONS)
    assert not json.loads((tmp_path / "m.zarr/zarr.json").read_text())["attributes"][
        "tile_infer"
    ].get("complete")
    assert world.run(tmp_path).code == 0
    check_whole(world, tmp_path)


@pytest.mark.parametrize("victim", VICTIMS)
def test_what_a_finished_mask_lost_and_loses_again_is_missed(
    world: World, tmp_path: Path, victim: str
) -> None:
    assert world.run(tmp_path).code == 0
    (tmp_path / "m.zarr" / victim).unlink()
    put = _local._put

    def loses(path: Path, *rest: Any, **named: Any) -> Any:
        return None if str(path).endswith(victim) else put(path, *rest, **named)

    with patch.object(_local, "_put", loses):
        ran = world.run(tmp_path)
    assert ran.code == 1
    assert re.search(r"m\.zarr: 1 blocks that were written are gone, block \d+ first", ran.err)
    assert world.run(tmp_path).code == 0
    check_whole(world, tmp_path)


def check_whole(world: World, out: Path) -> None:
    there = tree(out)
    del there["m.json"]
    assert there == world.whole


def test_a_mask_with_a_hole_is_not_exported(world: World, tmp_path: Path) -> None:
    done = predict(
        textured(*SHAPE)[:, :, 0],
        world.folder / "net.onnx",
        tmp_path / "m.zarr",
        Settings(tile=(36, 36)),
    )
    (tmp_path / "m.zarr/2/c/0/0").unlink()
    for name in COMPANIONS[:3]:
        with pytest.raises(OutputError, match=r"m\.zarr: 1 chunks of level 2 are gone"):
            done.export(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_nothing_is_written_once_a_failure_is_told(world: World, tmp_path: Path) -> None:
    """Of the chunks of a block zarr writes the others, though one of them has failed."""
    put, begun, ended = _local._put, list[Path](), list[Path]()

    def slow(path: Path, *rest: Any, **named: Any) -> Any:
        if "/0/c/" not in str(path):
            return put(path, *rest, **named)
        if int(path.name) % 2 == 0 and int(path.parent.name) % 2 == 0:  # the first of each block
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        begun.append(path)
        time.sleep(0.2)
        written = put(path, *rest, **named)
        ended.append(path)
        return written

    with patch.object(_local, "_put", slow):
        ran = world.run(tmp_path)
        assert ran.code == 1
        assert begun
        assert sorted(begun) == sorted(ended)
    assert not (tmp_path / "m.zarr").exists(), "no block was done"
    assert world.run(tmp_path).code == 0
    check_whole(world, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_failure_ends_the_run(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    run, begun, failed, sent = OnnxRunner.__call__, count(), threading.Event(), threading.Event()

    def fails(runner: OnnxRunner, tiles: Any) -> Output:
        if next(begun) == 8:
            failed.set()
            raise RuntimeError("it broke")
        if failed.is_set() and not sent.is_set():
            sent.set()
            time.sleep(0.2)  # the command waits for this block to end
            os.kill(os.getpid(), number)
            time.sleep(0.2)
        return run(runner, tiles)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with patch.object(OnnxRunner, "__call__", fails):
            code = main(world.command(tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)
    assert sent.is_set()
    assert code == 128 + number
    left = [each for each in threading.enumerate() if each.name.startswith(("block", "device"))]
    assert not any(each.is_alive() for each in left)
    check_state(tmp_path, world.whole)
    check_records(tmp_path, world.whole)
    assert world.run(tmp_path).code == 0
    check_whole(world, tmp_path)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of so many bytes, which can be made larger while it is used."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def of_size(size: str) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a tmpfs cannot be mounted here: {error}")
        mounted = True
        return folder

    yield of_size
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_in_mid_run(world: World, tiny_disk: Callable[[str], Path]) -> None:
    disk = tiny_disk("4m")
    tick, ticks = Clock.tick, []

    def fills(clock: Clock, pixels: int) -> Any:
        ticks.append(pixels)
        if len(ticks) == 3:  # somebody else takes what is left
            with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while filler.write(bytes(4096)):
                    pass
        return tick(clock, pixels)

    with patch.object(Clock, "tick", fills):
        ran = world.run(disk)
    assert ran.code == 1
    (line,) = ran.errors
    assert re.search(r"writing .*m\.zarr, block \d+ \(.*\): No space left on device$", line)
    check_state(disk, world.whole)
    check_records(disk, world.whole)
    assert len(list((disk / "m.zarr/tile_infer/records/c").glob("*/0"))) >= 3

    again = world.run(disk)
    assert again.code == 1
    assert len(again.errors) == 1
    assert re.search(r"cannot be written to \(No space|may take .* of disk more", again.errors[0])

    tiny_disk("8m")
    ran = world.run(disk)
    assert ran.code == 0, ran.err
    (disk / "filler").unlink()
    check_whole(world, disk)


def test_a_disk_that_is_full_from_the_start(world: World, tiny_disk: Callable[[str], Path]) -> None:
    ran = world.run(tiny_disk("64k"))
    assert ran.code == 1
    (line,) = ran.errors
    assert "m.zarr may take" in line
    ran = world.run(tiny_disk("8m"))
    assert ran.code == 0, ran.err
    check_whole(world, tiny_disk("8m"))
