"""Runs in a process of their own, stopped from outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from tile_infer.cli.interrupt import Interrupted, stoppable

from .conftest import write_network

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from tile_infer.cli.main import main; sys.exit(main())",
]


@pytest.fixture
def slow_run(tmp_path: Path) -> list[str]:
    """A command line that takes a few seconds and writes a chunk every now and then."""
    weights = np.random.default_rng(0).standard_normal((2, 1, 41, 41)) / 41
    write_network(tmp_path / "slow.onnx", weights, (0.0, 0.0))
    pixels = np.random.default_rng(1).integers(0, 256, (2600, 1300), np.uint8)
    tifffile.imwrite(tmp_path / "slide.tif", pixels, tile=(256, 256))
    return [*PROGRAM, "slide.tif", "--model", "slow.onnx", "--workers", "1", "--tile", "340"]


def start(command: list[str], folder: Path) -> "subprocess.Popen[str]":
    def hear_signals() -> None:  # though this test may run in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_signals,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for_chunk(process: "subprocess.Popen[str]", folder: Path) -> None:
    for _ in range(600):
        if list(folder.glob("slide.slow.zarr/0/c/*/*")):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("no chunk was written")


def chunks(folder: Path) -> dict[str, bytes]:
    root = folder / "slide.slow.zarr"
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("?/c/*/*")}


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_keeps_finished_blocks_and_the_same_command_continues(
    slow_run: list[str], tmp_path: Path, number: signal.Signals, code: int, word: str
) -> None:
    process = start(slow_run, tmp_path)
    wait_for_chunk(process, tmp_path)
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert f"{word}: finished blocks are kept; the same command continues" in err
    assert "Traceback" not in err
    assert out == ""
    before = chunks(tmp_path)
    group = zarr.open_group(tmp_path / "slide.slow.zarr", mode="r")
    assert isinstance(group["0"], zarr.Array)
    assert 0 < len([key for key in before if key.startswith("0/")]) < group["0"].nchunks

    resumed = subprocess.run(slow_run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    after = chunks(tmp_path)
    assert before.items() <= after.items()
    uninterrupted = [*slow_run, "--out", "other/slide.slow.zarr"]
    assert subprocess.run(uninterrupted, cwd=tmp_path, capture_output=True).returncode == 0
    assert chunks(tmp_path / "other") == after


def test_a_run_begun_with_overwrite_says_to_continue_without(
    slow_run: list[str], tmp_path: Path
) -> None:
    process = start([*slow_run, "--overwrite"], tmp_path)
    wait_for_chunk(process, tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command without --overwrite continues" in err


def test_only_a_second_wish_some_time_later_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    # A shell starts what runs in its background with SIGINT ignored, and so these tests as well.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with stoppable():
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.exit_code == 143
        signal.raise_signal(signal.SIGTERM)  # the same wish, passed on by somebody else as well
        assert left == []
        monkeypatch.setattr("tile_infer.cli.interrupt._SAME_WISH_SECONDS", -1.0)
        signal.raise_signal(signal.SIGINT)
    assert left == [130]


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_output_into_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    write_network(tmp_path / "tiny.onnx", [[[[1.0]]]], (0.0,))
    process = start([*PROGRAM, "inspect", "tiny.onnx", "--json"], tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 1
    assert err == ""


def test_help_is_there_without_waiting_for_torch(tmp_path: Path) -> None:
    program = "import sys; from tile_infer.cli.main import main; main(['--help'])"
    check = "; assert not {'torch', 'onnxruntime', 'dask'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program + check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
