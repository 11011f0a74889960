"""zarr's thread can be started again, survives what would end it, and can be awaited."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from zarr.core import sync as zarr_sync
from zarr.core.sync import sync

from tile_infer import TileInferError, predict_large
from tile_infer.engine.stitcher.zarr_thread import settle_zarr, start_zarr

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("collected"),
]


@pytest.fixture(autouse=True)
def none_yet() -> Iterator[None]:
    """Let there be no thread of zarr before and after."""
    zarr_sync.cleanup_resources()
    yield
    zarr_sync.cleanup_resources()


async def seven() -> int:
    await asyncio.sleep(0)
    return 7


def test_it_is_started_once_and_runs_what_zarr_runs() -> None:
    start_zarr()
    thread = zarr_sync.iothread[0]
    start_zarr()
    assert zarr_sync.iothread[0] is thread
    assert sync(seven()) == 7


def test_what_would_end_it_is_told_to_who_waits_alone() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    start_zarr()
    with pytest.raises(SystemExit):
        sync(leave())
    assert sync(seven(), timeout=60) == 7
    thread = zarr_sync.iothread[0]
    assert thread is not None
    assert thread.is_alive()


def test_one_that_could_not_be_started_is_started_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(RuntimeError, match="can't start"):
            start_zarr()
        with pytest.raises(RuntimeError, match="can't start"):
            zarr_sync._get_loop()  # as zarr itself does, of which nothing is left that would work
        with pytest.raises(TileInferError, match="starting zarr's thread: can't start new thread"):
            predict_large("no.tif", "no.onnx")
    start_zarr()
    assert sync(seven(), timeout=60) == 7


def test_what_is_under_way_is_awaited() -> None:
    ended = []

    async def slow() -> None:
        await asyncio.sleep(0.1)
        ended.append(True)

    async def begin() -> "asyncio.Task[None]":
        return asyncio.create_task(slow())

    start_zarr()
    task = sync(begin())
    assert not ended
    settle_zarr()
    assert ended
    assert task.done()


def test_two_that_wait_do_not_wait_for_each_other() -> None:
    start_zarr()
    threads = [threading.Thread(target=settle_zarr, args=(60.0,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
