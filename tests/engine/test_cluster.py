"""A Dask cluster leaves the bytes of one thread, whoever computes which block."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from torch import nn

from tile_infer import (
    ImageError,
    ModelError,
    OutputError,
    Plan,
    Progress,
    SettingError,
    TileInferError,
    TileInferWarning,
    plan_prediction,
    predict_large,
)
from tile_infer.engine import cluster as cluster_module
from tile_infer.engine import cluster_worker
from tile_infer.engine.block import infer_block
from tile_infer.engine.cluster import Cluster
from tile_infer.engine.cluster_worker import BlockPlugin, Order
from tile_infer.engine.crew import Workplace
from tile_infer.engine.finish import finish
from tile_infer.engine.stitcher.store import claim, open_store

from ..exactness.run_plan import tree
from ..exactness.seeded_networks import export, seeded, textured

distributed = pytest.importorskip("distributed")

OPTIONS: dict[str, Any] = {"tile": (188, 220), "backend": "onnx"}
PIXELS = textured(30, 40000)[:, :, 0]


@contextmanager
def cluster(workers: int, threads: int = 1, **options: Any) -> Iterator[Any]:
    """Open a cluster on this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dask itself
        with (
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=threads,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                **options,
            ) as opened,
            distributed.Client(opened) as client,
        ):
            yield client


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster(2) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of many blocks, a network, and the mask of one thread."""
    found = tmp_path_factory.mktemp("cluster")
    tifffile.imwrite(found / "slide.tif", PIXELS, tile=(64, 256), compression="zlib")
    export(seeded(2, 0, classes=3), found / "net.onnx", 1)
    run(found, found / "whole.zarr", workers=1)
    return found


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    """The plan that all follow: one thread of the network, wherever it runs."""
    return made(folder, 1)


def made(folder: Path, workers: int) -> Plan:
    plan = plan_prediction(folder / "slide.tif", folder / "net.onnx", workers=1, **OPTIONS)
    assert plan.grid.blocks > 20
    return replace(plan, execution=replace(plan.execution, workers=workers, threads=1))


def begun(folder: Path, out: Path, workers: int = 1) -> Path:
    """Return an output that is claimed by the plan, for so many workers of a local run."""
    claim(open_store(out), made(folder, workers).to_dict())
    return out


def run(folder: Path, out: Path, workers: int = 1, **options: Any) -> Any:
    begun(folder, out, workers)
    return predict_large(folder / "slide.tif", folder / "net.onnx", out, verify=0, **options)


def chunks(out: Path) -> dict[str, bytes]:
    """Return the bytes of every chunk and record."""
    return {name: data for name, data in tree(out).items() if "/c/" in name}


def test_four_threads_leave_the_bytes_of_one(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "four.zarr", workers=4)
    assert chunks(tmp_path / "four.zarr") == chunks(folder / "whole.zarr")


def test_parts_leave_the_bytes_of_one_thread(folder: Path, tmp_path: Path) -> None:
    for number in range(4):
        run(folder, tmp_path / "parts.zarr", part=f"{number}/4")
    finish(tmp_path / "parts.zarr")
    assert tree(tmp_path / "parts.zarr") == tree(folder / "whole.zarr")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_cluster_leaves_the_bytes_of_one_thread(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    seen: list[Progress] = []
    out = tmp_path / "mask.zarr"
    with cluster(workers) as client:
        assert len(client.nthreads()) == workers
        done = run(folder, out, client=client, on_progress=seen.append)
        assert not [name for name in plugins(client) if name.startswith("tile-infer")]
    assert tree(out) == tree(folder / "whole.zarr")
    blocks = done.plan.grid.blocks
    assert [each.blocks_done for each in seen] == list(range(blocks + 1))
    one = run(folder, folder / "whole.zarr").report
    assert done.report["classes"] == one["classes"]
    assert done.report["counts"]["tiles_run"] == done.plan.grid.tiles
    assert done.report["counts"]["segments_decoded"] > 0
    assert done.report["stages"]["network"] > 0


def plugins(client: Any) -> list[str]:
    def names(dask_worker: Any) -> list[str]:
        return list(dask_worker.plugins)

    return [name for found in client.run(names).values() for name in found]


def test_workers_that_are_killed_cost_their_blocks_alone(folder: Path, tmp_path: Path) -> None:
    out, killed = tmp_path / "mask.zarr", set[int]()
    with cluster(2) as opened:

        def kill(progress: Progress) -> None:
            if progress.blocks_done in (4, 12, 20):
                pids = {each.pid for each in opened.cluster.workers.values()} - {None, *killed}
                pid = max(pids)  # of the youngest, which a dead one was replaced by
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)

        run(folder, out, client=opened, on_progress=kill)
    assert len(killed) == 3
    assert tree(out) == tree(folder / "whole.zarr")


class StopError(Exception):
    pass


def stop_after(blocks: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.blocks_done >= blocks:
            raise StopError

    return report


def test_a_local_run_that_was_stopped_continues_on_a_cluster_and_back(
    client: Any, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mask.zarr"
    with pytest.raises(StopError):
        run(folder, out, on_progress=stop_after(5))
    with pytest.raises(StopError):
        run(folder, out, client=client, on_progress=stop_after(12))
    assert not list(out.rglob("*.partial"))
    before = chunks(out)
    assert before != chunks(folder / "whole.zarr")
    sleep(0.3)
    assert chunks(out) == before, "a worker writes on after the run has ended"
    done = run(folder, out, client=client)
    assert 0 < done.report["blocks_run"] < done.plan.grid.blocks - 10
    assert tree(out) == tree(folder / "whole.zarr")


def test_what_waits_at_the_scheduler_is_bounded(
    client: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_FEWEST", 2)
    waiting: list[int] = []

    def count(progress: Progress) -> None:
        known = [each for key, each in client.futures.items() if key.startswith("infer_block")]
        waiting.append(sum(each.status == "pending" for each in known))
        assert len(known) <= 12, "those that ended are let go of"

    done = run(folder, tmp_path / "mask.zarr", client=client, on_progress=count)
    assert 0 < max(waiting) <= 6 < done.plan.grid.blocks


def test_arrays_and_modules_are_sent(client: Any, tmp_path: Path) -> None:
    pixels = PIXELS[:, :6000]
    module = nn.Sequential(nn.Conv2d(1, 3, 3))
    here = predict_large(pixels, module, tmp_path / "here.zarr", workers=2, verify=0)
    there = predict_large(
        pixels, module, tmp_path / "there.zarr", workers=2, verify=0, client=client
    )
    assert there.plan.grid.blocks > 1
    np.testing.assert_array_equal(np.asarray(there), np.asarray(here))


def test_a_dask_array_is_computed_by_the_workers(client: Any, folder: Path, tmp_path: Path) -> None:
    import dask.array

    stored = zarr.create_array(
        tmp_path / "pixels.zarr", shape=PIXELS.shape, chunks=(30, 4096), dtype="uint8"
    )
    stored[:] = PIXELS
    array = dask.array.from_zarr(tmp_path / "pixels.zarr")
    claimed = plan_prediction(array, folder / "net.onnx", workers=1, **OPTIONS)
    here = predict_large(PIXELS, folder / "net.onnx", workers=1, verify=0, **OPTIONS)
    there = predict_large(
        array,
        folder / "net.onnx",
        tmp_path / "m.zarr",
        workers=1,
        verify=0,
        client=client,
        **OPTIONS,
    )
    assert there.plan.image.identity == claimed.image.identity
    np.testing.assert_array_equal(np.asarray(there), np.asarray(here))


class Unsendable(nn.Conv2d):
    def __reduce_ex__(self, _: Any) -> Any:
        raise TypeError("a thread lock is inside")


def test_what_cannot_be_sent_is_told(client: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Unsendable cannot be sent .*lock.*give its path"):
        predict_large(PIXELS, Unsendable(1, 2, 3), tmp_path / "mask.zarr", client=client)
    assert not (tmp_path / "mask.zarr").exists()


def elsewhere(client: Any, monkeypatch: pytest.MonkeyPatch, name: str, path: Path) -> None:
    """Let workers be sent another path than the one that is used here."""
    made = Order

    def order(**fields: Any) -> Any:
        return made(**{**fields, name: path})

    monkeypatch.setattr(cluster_module, "Order", order)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("image", ImageError, "missing.file"),
        ("model", ModelError, "missing.file"),
        ("out", OutputError, "missing.file is not there"),
    ],
)
def test_workers_that_cannot_see_a_path_are_told_of_before_the_first_block(
    client: Any,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[TileInferError],
    text: str,
) -> None:
    elsewhere(client, monkeypatch, name, tmp_path / "missing.file")
    seen: list[Progress] = []
    with pytest.raises(kind, match=rf"2 of 2 Dask workers cannot take part: .*{text}") as caught:
        run(folder, tmp_path / "mask.zarr", client=client, on_progress=seen.append)
    assert "\n" not in str(caught.value)
    assert [each.blocks_done for each in seen] == [0]


def test_a_folder_of_the_same_path_elsewhere_is_not_written_to(
    client: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = begun(folder, tmp_path / "other.zarr")
    elsewhere(client, monkeypatch, "out", other)
    before = tree(other)
    with pytest.raises(OutputError, match=r"other\.zarr is not there, or is another folder"):
        run(folder, tmp_path / "mask.zarr", client=client)
    assert tree(other) == before


def test_another_image_under_the_same_path_is_refused(
    client: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "slide.tif", PIXELS[:, ::-1], tile=(64, 256), compression="zlib")
    elsewhere(client, monkeypatch, "image", tmp_path / "slide.tif")
    with pytest.raises(ImageError, match=r"slide\.tif has other content there"):
        run(folder, tmp_path / "mask.zarr", client=client)


def test_a_block_that_fails_ends_the_run_and_is_named(client: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "slide.tif", PIXELS, tile=(64, 256), compression="zlib")
    network = tmp_path / "net.onnx"
    export(seeded(2, 0, classes=3), network, 1)
    with tifffile.TiffFile(tmp_path / "slide.tif") as tiff:
        page: Any = tiff.pages[0]
        offset = page.dataoffsets[len(page.dataoffsets) // 2]
    with (tmp_path / "slide.tif").open("r+b") as file:
        file.seek(offset)
        file.write(b"\x00" * 40)
    with pytest.raises(ImageError, match=r"block \d+ \(pixels"):
        predict_large(
            tmp_path / "slide.tif",
            network,
            tmp_path / "m.zarr",
            workers=1,
            client=client,
            **OPTIONS,
        )


@pytest.mark.parametrize(
    ("grows", "error", "why"),
    [
        (True, TileInferWarning, "no Dask worker is there: waiting for one"),
        (False, TileInferError, "no Dask worker is left: .*; the same command continues"),
    ],
)
def test_a_cluster_that_has_lost_all_workers_is_told_and_the_run_continues(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    grows: bool,
    error: type[Exception],
    why: str,
) -> None:
    monkeypatch.setattr(cluster_module, "_FEWEST", 2)
    monkeypatch.setattr(cluster_module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(cluster_module, "_ALONE_SECONDS", 1.0)
    out = tmp_path / "mask.zarr"
    with cluster(1) as opened, monkeypatch.context() as patched:

        def lose(progress: Progress) -> None:
            if progress.blocks_done == 1:
                for nanny in [*opened.cluster.workers.values()]:
                    opened.cluster.sync(nanny.close)

        patched.setattr(Cluster.__init__, "__kwdefaults__", {"grows": grows})
        warnings.simplefilter("error", TileInferWarning)
        with pytest.raises(error, match=why):
            run(folder, out, client=opened, on_progress=lose)
    assert run(folder, out).report["blocks_run"] > 0
    assert tree(out) == tree(folder / "whole.zarr")


def test_resources_are_asked_for_and_one_that_nobody_has_is_refused(
    client: Any, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="no Dask worker declares GPU=1"):
        run(folder, tmp_path / "mask.zarr", client=client, resources={"GPU": 1})


@pytest.mark.parametrize(
    ("resources", "least", "most"), [({"GPU": 1}, 1, 1), ({"GPU": 0.5}, 1, 2), (None, 3, 4)]
)
def test_no_more_blocks_than_the_resources_allow_run_at_the_same_time(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: dict[str, float] | None,
    least: int,
    most: int,
) -> None:
    running, seen = list[int](), list[int]()

    def counted(worker: Any, block: int) -> Any:
        running.append(block)
        seen.append(len(running))
        sleep(0.05)
        record = infer_block(worker, block)
        running.remove(block)
        return record

    monkeypatch.setattr(cluster_worker, "infer_block", counted)
    with cluster(1, 4, processes=False, resources={"GPU": 1}) as opened:
        run(folder, tmp_path / "mask.zarr", client=opened, resources=resources)
    assert least <= max(seen) <= most


def test_the_mask_has_to_have_a_place(client: Any, folder: Path) -> None:
    with pytest.raises(SettingError, match="give out=PATH"):
        predict_large(PIXELS, folder / "net.onnx", client=client)


def test_a_part_is_not_shared_out(client: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="contradict"):
        run(folder, tmp_path / "mask.zarr", client=client, part="0/2")


def test_the_share_of_a_worker(client: Any, plan: Plan) -> None:
    share = Cluster(client).share(plan)
    assert share is not None
    assert (share.workers, share.blocks) == (2, -(-plan.grid.blocks // 2))
    assert 0 < share.memory_bytes <= plan.memory_bytes


def test_a_worker_that_comes_later_takes_part(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "_FEWEST", 2)
    results, openings = cluster_module._results, set[str]()

    def seen(client: Any, ended: Any) -> Iterator[Any]:
        for done in results(client, ended):
            openings.add(done.opening)
            yield done

    monkeypatch.setattr(cluster_module, "_results", seen)
    out = tmp_path / "mask.zarr"
    with cluster(1) as opened:

        def grow(progress: Progress) -> None:
            if progress.blocks_done == 3:
                opened.cluster.scale(2)
                opened.wait_for_workers(2, timeout=300)

        run(folder, out, client=opened, on_progress=grow)
    assert len(openings) == 2
    assert tree(out) == tree(folder / "whole.zarr")


def short_of_memory(plugin: BlockPlugin, opened: Any, pixels: Any) -> Workplace:
    """Open a run where a tile of the plan does not fit, as a worker does."""
    workplace = plain_open(plugin, opened, pixels)
    tile, run = workplace.worker.plan.grid.tile, workplace.run._run
    assert run is not None
    inner = run.run

    def runs(tiles: Any) -> Any:
        if tiles.shape[1:3] == tile:
            raise MemoryError
        return inner(tiles)

    run.run = runs
    return workplace


plain_open = BlockPlugin._open


def test_a_worker_whose_memory_runs_out_goes_on_in_smaller_tiles_and_tells(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mask.zarr"
    monkeypatch.setattr(BlockPlugin, "_open", short_of_memory)
    with (
        cluster(2, processes=False) as opened,
        pytest.warns(TileInferWarning, match="ran out: blocks from now on in tiles of") as told,
    ):
        done = run(folder, out, client=opened)
    assert len(told) == 2, "each worker tells once"
    assert sum(len(each["blocks"]) for each in done.report["changed"]) == done.plan.grid.blocks
    whole = zarr.open_group(folder / "whole.zarr", mode="r")["0"]
    assert isinstance(whole, zarr.Array)
    assert np.mean(np.asarray(whole) != np.asarray(done)) < 1e-4
