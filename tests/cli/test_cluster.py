"""A Dask cluster from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from tile_infer.cli.sharing import Sharing
from tile_infer.cli.terminal import Terminal

from ..exactness.run_plan import tree
from .conftest import Run, Write
from .test_usage import assert_one_error

pytest.importorskip("distributed")

import dask
from dask.utils import parse_timedelta

from tile_infer.engine.cluster import Cluster

PIXELS = np.random.default_rng(0).integers(0, 255, (1500, 2100), np.uint8)


def test_a_cluster_on_this_machine_makes_the_mask_of_one_process(
    run: Run, image: Write, bright: Path, tmp_path: Path
) -> None:
    image(pixels=PIXELS)
    here = run("slide.tif", "--model", bright, "--out", "here.zarr", "--workers", "2")
    there = run(
        *("slide.tif", "--model", bright, "--out", "there.zarr", "--workers", "2"),
        *("--dask", "local:2", "--report", "run.json"),
    )
    assert (here.code, there.code) == (0, 0), there.err
    assert tree(tmp_path / "here.zarr") == tree(tmp_path / "there.zarr")
    assert json.loads(Path("run.json").read_text())["blocks_run"] == 6
    notes = [line for line in there.err.splitlines() if line.startswith("note: ")]
    assert any(line.startswith("note: Dask's dashboard: http://") for line in notes)
    assert any(line.startswith("note: 2 processes, up to 3 blocks and ") for line in notes)
    assert "Traceback" not in there.err


def test_dask_gives_no_worker_up_that_it_starts_again() -> None:
    """It would one that is away 15 s after a loss, for the rest of the run."""
    patience = "distributed.deploy.lost-worker-timeout"
    before = dask.config.get(patience)
    with Sharing(dask="local:1").crew(Terminal()) as crew:
        assert isinstance(crew, Cluster)
        assert not crew.grows
        assert parse_timedelta(dask.config.get(patience)) > 7 * 24 * 3600 > parse_timedelta(before)
    assert dask.config.get(patience) == before


@pytest.mark.parametrize(
    ("options", "processes", "blocks"),
    [
        (["--dask", "local:4"], "4 processes", 2),
        (["--dask", "local:1"], "1 process", 6),
        (["--part", "1/3"], "3 processes", 2),
    ],
)
def test_a_plan_says_what_falls_to_each_process(
    run: Run, image: Write, bright: Path, options: list[str], processes: str, blocks: int
) -> None:
    image(pixels=PIXELS)
    done = run("plan", "slide.tif", "--model", bright, "--workers", "2", *options)
    assert done.code == 0, done.err
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert any(row.startswith(f"share {processes}, up to {blocks} blocks") for row in rows)
    shown = run("plan", "slide.tif", "--model", bright, "--workers", "2", "--json", *options)
    plan = json.loads(shown.out)
    assert plan["share"]["blocks"] == blocks
    assert 0 < plan["share"]["memory_bytes"] <= plan["memory_bytes"]
    alone = run("plan", "slide.tif", "--model", bright, "--json")
    assert "share" not in json.loads(alone.out)


def test_a_scheduler_that_does_not_answer_is_told_in_a_line(
    run: Run, image: Write, bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tile_infer.engine.local_cluster.CONNECT_SECONDS", 0.2)
    before = {image(), bright}
    for address in ("tcp://127.0.0.1:9", "nothing://here", "missing.json"):
        done = run("slide.tif", "--model", bright, "--dask", address)
        assert done.code == 1
        assert_one_error(done.err, f"no Dask scheduler answers at {address}", "local:N")
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize("command", [[], ["plan"]])
@pytest.mark.parametrize(
    ("tokens", "part"),
    [
        (["--dask", "local:0"], "--dask local:0 asks for no worker"),
        (["--dask", "local", "--part", "0/2"], "--part and --dask contradict"),
    ],
)
def test_wrong_options_are_told(
    run: Run, image: Write, bright: Path, command: list[str], tokens: list[str], part: str
) -> None:
    image()
    done = run(*command, "slide.tif", "--model", bright, *tokens)
    assert done.code == 2
    assert part in done.err.splitlines()[-1]
