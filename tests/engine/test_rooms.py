"""Images under way together take no more than one, and a plan is made as if it were alone."""

import threading
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine import memory, pipeline, rooms
from tile_infer.engine.backends.base import Execution
from tile_infer.engine.backends.shared import SharedNetwork
from tile_infer.engine.block import infer_block
from tile_infer.engine.crew import Threads
from tile_infer.engine.predict import predict
from tile_infer.engine.rooms import Room, Rooms, Stopped, alone, side_by_side
from tile_infer.engine.settings import Settings
from tile_infer.engine.sizing import BASE_BYTES

from ..cli.conftest import write_network

THIRD, HALF = Fraction(1, 3), Fraction(1, 2)


class Taker:
    """Somebody who wants a part of a room, in a thread of his own."""

    def __init__(self, room: Room, share: Fraction) -> None:
        self.has, self.may_go, self.stopped = (threading.Event() for _ in range(3))
        self.thread = threading.Thread(target=self._take, args=(room, share), daemon=True)
        waiting = len(room._waiting)
        self.thread.start()
        while not self.has.is_set() and len(room._waiting) == waiting:
            pass  # until he waits, or has it

    def _take(self, room: Room, share: Fraction) -> None:
        try:
            with room.seat(share):
                self.has.set()
                self.may_go.wait(60)
        except Stopped:
            self.stopped.set()

    def leave(self) -> None:
        self.may_go.set()
        self.thread.join(60)


def test_parts_of_different_sizes_never_make_more_than_one() -> None:
    room = Room()
    first, second = Taker(room, THIRD), Taker(room, THIRD)
    third = Taker(room, HALF)  # 2/3 + 1/2 is too much
    assert first.has.is_set()
    assert second.has.is_set()
    assert not third.has.is_set()
    assert room.taken == 2 * THIRD
    first.leave()
    assert third.has.wait(60)
    assert room.taken == THIRD + HALF
    second.leave()
    third.leave()
    assert room.taken == 0


def test_who_comes_first_is_served_first_though_another_would_fit() -> None:
    room = Room()
    small = Taker(room, THIRD)
    whole = Taker(room, Fraction(1))
    late = Taker(room, THIRD)
    assert not late.has.is_set()
    small.leave()
    assert whole.has.wait(60)
    assert not late.has.is_set()
    whole.leave()
    assert late.has.wait(60)
    late.leave()


def test_nobody_is_given_a_part_of_what_was_stopped() -> None:
    room = Room()
    inside, waiting = Taker(room, Fraction(1)), Taker(room, THIRD)
    room.stop()
    assert waiting.stopped.wait(60)
    with pytest.raises(Stopped), room.seat(THIRD):
        pass
    inside.leave()
    assert room.taken == 0


def test_what_is_held_in_the_end_is_given_back_once() -> None:
    room = Room()
    with room.seats(THIRD) as seats:
        seats.take()
        seats.take()
        seats.give()
        assert room.taken == THIRD
    seats.give()  # of a thread that ends later
    assert room.taken == 0


class Meeting:
    """Stands in for a block: counts those in flight, and waits for so many to meet."""

    def __init__(self, parties: int, patience: float) -> None:
        self.barrier, self.now, self.most = Barrier(parties, timeout=patience), 0, 0
        self.lock = threading.Lock()
        self.infer_block = infer_block

    def __call__(self, worker: Any, block: int) -> Any:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        with suppress(BrokenBarrierError):
            self.barrier.wait()
            self.barrier.abort()  # once is enough
        try:
            return self.infer_block(worker, block)
        finally:
            with self.lock:
                self.now -= 1


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "bright.onnx", [[[[0.0]]], [[[1.0]]]], (0.5, 0.0))


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (3000, 3000), np.uint8)


def run_two(model: Path, own: list[Rooms]) -> None:
    """Segment two images at the same time, of several blocks each and two workers."""
    failed = list[BaseException]()

    def run(seed: int) -> None:
        try:
            settings = Settings(workers=2, tile=(300, 300))
            done = predict(noise(seed), model, None, settings, crew=Threads(own[seed]))
            assert done.plan.grid.blocks > 3
            np.testing.assert_array_equal(done.mask[:], noise(seed) > 127)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed, failed


def test_two_images_have_no_more_blocks_in_flight_than_one_may(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = Meeting(parties=4, patience=2)
    monkeypatch.setattr(pipeline, "infer_block", blocks)
    shared = Rooms()
    run_two(model, [shared, shared])
    assert blocks.most == 3  # as many as one has: a block for each worker and one to read
    assert shared.blocks.taken == shared.device.taken == 0


def test_two_that_share_nothing_have_more(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = Meeting(parties=4, patience=60)
    monkeypatch.setattr(pipeline, "infer_block", blocks)
    run_two(model, [Rooms(), Rooms()])
    assert blocks.most > 3


def test_the_next_image_is_told_when_the_last_block_is_begun(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = list[object]()

    def recorded(worker: Any, block: int) -> Any:
        record = infer_block(worker, block)
        events.append(block)
        return record

    monkeypatch.setattr(pipeline, "infer_block", recorded)
    crew = Threads(Rooms(), lambda: events.append("last"))
    settings = Settings(workers=1, tile=(300, 300))
    blocks = predict(noise(0), model, None, settings, crew=crew).plan.grid.blocks
    assert events.count("last") == 1
    # Two are in flight: all but those were done before.
    assert len(events) - events.index("last") - 1 in (1, 2)
    assert len(events) == blocks + 1


def test_what_other_images_hold_counts_as_available_for_a_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = {"bytes": BASE_BYTES + (1 << 30)}
    free = {"bytes": 6 << 30}
    for module in (rooms, memory):
        monkeypatch.setattr(module, "held_bytes", lambda: held["bytes"])
    monkeypatch.setattr(memory, "_free_bytes", lambda root: free["bytes"])
    monkeypatch.setattr(memory, "group_bytes", lambda root: None)
    monkeypatch.setattr(memory, "_address_bytes", lambda root: None)
    shared = Rooms()
    with shared.planning():
        held["bytes"], free["bytes"] = held["bytes"] + (5 << 30), 1 << 30
        assert memory.available_bytes() == 1 << 30  # nobody else is there
    with shared.planning():  # whatever the other is at: its blocks, levels or certificate
        assert memory.available_bytes() == 6 << 30
        held["bytes"], free["bytes"] = held["bytes"] - (5 << 30), 6 << 30
        assert memory.available_bytes() == 6 << 30, "what was given back meanwhile counts once"
    held["bytes"], free["bytes"] = held["bytes"] + (5 << 30), 1 << 30
    assert memory.available_bytes() == 1 << 30


def test_what_is_timed_for_a_plan_is_alone() -> None:
    shared = Rooms()
    with alone():  # nobody shares anything
        pass
    other = Taker(shared.blocks, THIRD)
    timed = threading.Event()

    def plan() -> None:
        with shared.planning(), alone():
            timed.set()

    thread = threading.Thread(target=plan)
    thread.start()
    assert not timed.wait(0.1)
    other.leave()
    assert timed.wait(60)
    thread.join()


@pytest.mark.parametrize(
    ("backend", "device", "both"),
    [("onnx", "cpu", True), ("openvino", "cpu", True), ("torch", "cpu", False)]
    + [(backend, "cuda:0", False) for backend in ("onnx", "torch")],
)
def test_a_network_is_used_side_by_side_where_it_can(backend: Any, device: str, both: bool) -> None:
    assert side_by_side(Execution(device, backend=backend)) is both


class Prepared:
    """A network that counts what is made ready, and cannot do more."""

    def __init__(self) -> None:
        self.count = 0

    def prepare(self, recipe: Any, execution: Execution) -> Any:
        self.count += 1
        return lambda tiles: tiles


def test_what_is_ready_for_one_image_is_handed_to_the_next_and_not_kept() -> None:
    network = Prepared()
    shared: Any = SharedNetwork(network)  # type: ignore[arg-type]
    here, fewer = Execution("cpu", workers=2), Execution("cpu", workers=1)
    first = shared.prepare("recipe", here)
    assert shared.prepare("recipe", here) is first
    assert shared.prepare("recipe", fewer) is not first
    assert shared.prepare("other", here) is not first
    assert network.count == 3
    del first
    shared.prepare("recipe", here)
    assert network.count == 4
    torch = Execution("cpu", backend="torch")
    assert shared.prepare("recipe", torch) is not shared.prepare("recipe", torch)
