"""One process writes an output; what a dead one left is taken over."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from tile_infer import ModelError, OutputError, Progress, predict_large

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 50), np.uint8)


def network() -> nn.Module:
    return nn.Conv2d(1, 2, 3)


def lock_of(mask: Path, host: str, pid: int) -> Path:
    """Write the lock that a process of some host would."""
    lock = mask / "tile_infer" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text(f"{pid}\n{host}\n")
    return lock


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as done:
        return done.pid


def test_a_second_writer_is_refused_with_host_and_process(tmp_path: Path) -> None:
    out, refused = tmp_path / "mask.zarr", list[str]()

    def again(_: Progress) -> None:
        with pytest.raises(OutputError) as caught:
            predict_large(IMAGE, network(), out)
        refused.append(str(caught.value))

    predict_large(IMAGE, network(), out, on_progress=again)
    assert refused
    named = f"process {os.getpid()} of {socket.gethostname()} (this one); wait until it has ended"
    assert all(named in text for text in refused)
    assert not (out / "tile_infer" / "lock").exists()
    predict_large(IMAGE, network(), tmp_path / "other.zarr")


def refused_beside_another(out: Path | str, run: Callable[..., object]) -> None:
    """Check that a run is refused while another process, which is then killed, holds its output."""
    holds = "import sys; from tile_infer.engine.stitcher.lock import one_writer\n"
    holds += "from tile_infer.engine.stitcher.store import open_store\n"
    holds += "with one_writer(open_store(sys.argv[1])): print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        for broken in (False, True):  # of this machine, none that lives is broken
            with pytest.raises(OutputError, match=f"by process {other.pid} of .*wait until"):
                run(break_lock=broken)
        other.kill()


def test_another_process_is_refused_as_long_as_it_lives(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    refused_beside_another(out, lambda **options: predict_large(IMAGE, network(), out, **options))
    assert (out / "tile_infer" / "lock").exists()
    predict_large(IMAGE, network(), out)
    assert not list(out.rglob("lock*"))


def test_a_lock_of_another_host_has_to_be_broken(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    lock = lock_of(out, "elsewhere", dead_process())
    with pytest.raises(OutputError, match=r"of elsewhere; if that has ended, give break_lock=True"):
        predict_large(IMAGE, network(), out)
    assert lock.read_text().splitlines()[1] == "elsewhere"
    predict_large(IMAGE, network(), out, break_lock=True)
    assert not lock.exists()


def test_a_dead_process_of_this_host_holds_nothing(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    lock = lock_of(out, socket.gethostname(), dead_process())
    predict_large(IMAGE, network(), out)
    assert not lock.exists()
    lock_of(out, socket.gethostname(), dead_process())
    assert predict_large(IMAGE, network(), out, overwrite=True).report["blocks_run"] == 1


def test_a_lock_that_a_power_cut_emptied_has_to_be_broken(tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    lock_of(out, "", 0).write_text("")
    with pytest.raises(OutputError, match="a process that is not named"):
        predict_large(IMAGE, network(), out)
    predict_large(IMAGE, network(), out, break_lock=True)


def test_what_cannot_run_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        predict_large(IMAGE, nn.Flatten(), tmp_path / "far" / "away" / "mask.zarr")
    assert not list(tmp_path.iterdir())
