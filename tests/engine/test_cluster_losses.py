"""Blocks and workers of a cluster that are lost, without a cluster: stand-ins say what happens."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from tile_infer import ImageError, TileInferError
from tile_infer.engine import cluster as cluster_module
from tile_infer.engine.cluster import Cluster

distributed = pytest.importorskip("distributed")


class Block:
    """A future that is done, unless it is pending."""

    def __init__(self, status: str, error: Exception | None = None) -> None:
        self.status, self.error = status, error or ImageError("cannot be read")

    def add_done_callback(self, call: Callable[["Block"], None]) -> None:
        if self.status != "pending":
            call(self)

    def exception(self) -> Exception:
        return self.error

    def result(self) -> None:
        raise self.error


def client_of(blocks: Iterable[Block], **changed: Any) -> Any:
    """Return a stand-in for a client, of a cluster with one worker, that submits these in turn."""
    todo = iter(blocks)
    does: dict[str, Any] = {
        "nthreads": lambda: {"worker": 1},
        "submit": lambda *_, **__: next(todo),
        "gather": lambda futures, errors: (
            ["done"] * sum(each.status == "finished" for each in futures)
        ),
        "sync": lambda call, *given, **_: call(*given),
        "cancel": lambda futures: None,
    }
    return SimpleNamespace(**does | changed)


def no_news(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize(("times", "done"), [(0, True), (4, True), (5, False)])
def test_a_block_that_is_lost_with_its_workers_is_submitted_again_a_few_times(
    times: int, done: bool
) -> None:
    lost = distributed.KilledWorker("key", None, 3)
    blocks = [Block("error", lost) for _ in range(times)] + [Block("finished")]
    todo, keys = iter(blocks), list[str]()

    def submit(*_: Any, key: str, **__: Any) -> Block:
        keys.append(key)
        return next(todo)

    told: Any = Cluster(client_of([], submit=submit))._blocks("name", [7], None, {}, no_news)
    if done:
        assert list(told) == ["done"]
    else:
        with pytest.raises(TileInferError, match="block 7 was given up"):
            list(told)
    assert len({*keys}) == len(keys) == min(times, 4) + 1


@pytest.mark.parametrize("when", ["before", "while the scheduler answers", "while it is fetched"])
def test_a_result_that_is_lost_with_its_worker_is_computed_again(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(cluster_module, "_LOOK_SECONDS", -1.0)  # the scheduler is always asked
    monkeypatch.setattr(cluster_module, "_soon", lambda queue: [queue.get()])
    lost, again = Block("lost" if when == "before" else "finished"), Block("finished")
    looks = list[None]()

    def nthreads() -> dict[str, int]:
        looks.append(None)
        if when == "while the scheduler answers" and len(looks) == 2:
            lost.status = "lost"
        return {"worker": 1}

    def sync(gather: Any, futures: list[Block], callback_timeout: float) -> Any:
        if when == "while it is fetched":
            lost.status = "lost"
        if any(each.status == "lost" for each in futures):
            raise TimeoutError
        return gather(futures)

    todo = iter([lost, again])
    client = client_of(todo, sync=sync, nthreads=nthreads)
    told: Any = Cluster(client)._blocks("name", [7], None, {}, no_news)
    assert list(told) == ["done"]
    assert lost.status == "lost"
    assert not list(todo)


@pytest.mark.parametrize(("last", "submitted"), [("finished", 17), ("error", 16)])
def test_after_a_failure_no_block_is_submitted(last: str, submitted: int) -> None:
    blocks = [Block(status) for status in ("finished", last, *["pending"] * 18)]
    todo = iter(blocks)
    told: Any = Cluster(client_of(todo))._blocks("name", range(17), None, {}, no_news)
    assert next(told) == "done"
    assert blocks.index(next(todo)) == submitted
    if last == "error":
        with pytest.raises(ImageError):
            next(told)


class Idle:
    """Stands in for a client whose cluster has these workers, as the scheduler tells of them."""

    def __init__(self, workers: dict[str, Any]) -> None:
        self.scheduler = SimpleNamespace(identity=lambda: {"workers": workers})

    def sync(self, call: Callable[[], Any]) -> Any:
        return call()


RUNNING: dict[str, Any] = {"status": "running", "resources": {}}
PAUSED: dict[str, Any] = {"status": "paused", "resources": {"GPU": 1.0}}


def test_no_worker_is_told_after_two_minutes_without_a_block_and_once() -> None:
    news = list[str]()
    crowd = cluster_module._Crowd(Idle({}), {}, True, news.append)
    for looks, known in ((59, 0), (1, 1), (100, 1)):
        for _ in range(looks):
            crowd.mind(ended=False)
        assert len(news) == known
    crowd.mind(ended=True)
    for looks, known in ((59, 1), (1, 2)):
        for _ in range(looks):
            crowd.mind(ended=False)
        assert len(news) == known


def test_a_worker_that_is_being_started_again_is_not_missed() -> None:
    workers = dict[str, Any]()
    crowd = cluster_module._Crowd(Idle(workers), {}, False, no_news)
    for number in range(200):
        workers.clear()
        if number % 60 < 50:  # it is away at each second look
            workers["a"] = RUNNING
        crowd.mind(ended=False)


@pytest.mark.parametrize(
    ("resources", "workers", "said"),
    [
        ({}, {"a": RUNNING}, None),
        ({"GPU": 1}, {"a": RUNNING, "b": RUNNING | {"resources": {"GPU": 2.0}}}, None),
        ({}, {"a": PAUSED}, "no Dask worker is there"),
        ({"GPU": 1}, {"a": RUNNING, "b": PAUSED}, "no Dask worker with GPU=1 is there"),
    ],
)
def test_slow_blocks_are_waited_for_where_a_worker_can_take_them(
    resources: dict[str, float], workers: dict[str, Any], said: str | None
) -> None:
    news = list[str]()
    crowd = cluster_module._Crowd(Idle(workers), resources, True, news.append)
    for _ in range(100):
        crowd.mind(ended=False)
    assert [text.startswith(str(said)) for text in news] == [True] * (said is not None)
