"""Pieces of work of which each is begun while the one before ends."""

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from threading import Event
from typing import Any

import pytest

from tile_infer.cli.overlap import Piece, overlapping
from tile_infer.cli.terminal import Lines
from tile_infer.engine.rooms import Stopped


def never() -> None:
    raise AssertionError("nothing is stopped")


def results(works: list[Callable[[Piece[Any]], Any]], at_once: int = 2) -> list[Any]:
    with closing(overlapping(works, never, at_once)) as outcomes:
        return [outcome.exception() or outcome.result() for outcome in outcomes]


@pytest.mark.parametrize(("at_once", "patience", "met"), [(2, 60, True), (1, 0.2, False)])
def test_the_next_is_begun_when_it_is_let_and_one_has_not_ended(
    at_once: int, patience: float, met: bool
) -> None:
    second = Event()

    def first(piece: Piece[bool]) -> bool:
        piece.let_next()
        return second.wait(patience)

    def follow(piece: Piece[bool]) -> bool:
        second.set()
        return True

    assert results([first, follow], at_once) == [met, True]


def test_none_is_begun_before_it_is_let() -> None:
    begun = Event()

    def first(piece: Piece[bool]) -> bool:
        return begun.wait(0.1)

    def follow(piece: Piece[bool]) -> bool:
        begun.set()
        return True

    assert results([first, follow]) == [False, True]


def test_no_more_than_two_are_under_way() -> None:
    third, release = Event(), Event()

    def slow(piece: Piece[bool]) -> bool:
        piece.let_next()
        return third.wait(0.1)

    def short(piece: Piece[bool]) -> bool:
        piece.let_next()
        return True

    def last(piece: Piece[bool]) -> bool:
        third.set()
        return release.is_set()

    assert results([slow, short, last]) == [False, True, False]


def test_what_begins_again_is_alone_though_it_had_let_the_next() -> None:
    let, third = Event(), Event()

    def first(piece: Piece[bool]) -> bool:
        piece.let_next()
        return let.wait(60)

    def second(piece: Piece[bool]) -> bool:
        piece.let_next()
        threading.Timer(0.1, let.set).start()
        piece.wait()
        return third.wait(0.1)

    def last(piece: Piece[bool]) -> bool:
        third.set()
        return True

    assert results([first, second, last]) == [True, False, True]


def test_outcomes_come_in_order_and_a_failure_is_one() -> None:
    ended = Event()

    def first(piece: Piece[int]) -> int:
        piece.let_next()
        assert ended.wait(60)
        return 1

    def second(piece: Piece[int]) -> int:
        ended.set()
        raise ValueError("no")

    found = results([first, second, lambda piece: 3])
    assert (found[0], str(found[1]), found[2]) == (1, "no", 3)


def test_what_is_printed_is_in_the_order_of_the_work() -> None:
    shown, kept, second = list[str](), list[bool](), Event()

    def first(piece: Piece[None]) -> None:
        piece.lines.put(lambda: shown.append("first at once"))
        assert shown == ["first at once"]
        piece.let_next()
        assert second.wait(60)
        piece.lines.put(lambda: shown.append("first later"))

    def follow(piece: Piece[None]) -> None:
        piece.lines.put(lambda: shown.append("second"))
        kept.append(piece.lines.kept)
        second.set()
        piece.wait()
        kept.append(piece.lines.kept)
        piece.lines.put(lambda: shown.append("second at once"))

    with closing(overlapping([first, follow], never)) as outcomes:
        for number, outcome in enumerate(outcomes):
            outcome.result()
            if not number:
                assert shown == ["first at once", "first later"]
                shown.append("told of the first")
    assert shown[2:] == ["told of the first", "second", "second at once"]
    assert kept == [True, False]


def test_lines_that_are_dropped_are_never_shown() -> None:
    lines, shown = Lines(), list[int]()
    lines.put(lambda: shown.append(1))
    lines.drop()
    lines.put(lambda: shown.append(2))
    lines.release()
    lines.drop()
    lines.put(lambda: shown.append(3))
    assert shown == [2, 3]


def test_what_is_shown_may_itself_have_something_shown() -> None:
    lines, shown = Lines(), list[int]()

    def show() -> None:
        lines.put(lambda: shown.append(2))
        shown.append(1)

    for release in (lines.release, lambda: lines.put(show)):
        lines.put(show)
        thread = threading.Thread(target=release, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert shown == [2, 1, 2, 1, 2, 1]


def test_what_nobody_asks_for_any_more_is_waited_for_and_no_more_begun() -> None:
    begun, stopped, ended = Event(), Event(), list[str]()

    def work(piece: Piece[None]) -> None:
        piece.let_next()
        begun.set()
        assert stopped.wait(60)
        ended.append("second")

    def third(piece: Piece[None]) -> None:
        ended.append("third")

    with closing(overlapping([lambda piece: None, work, third], stopped.set)) as outcomes:
        next(outcomes).result()
        assert begun.wait(60)
    assert ended == ["second"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("wakes", [True, False])
def test_an_interruption_stops_what_is_under_way_and_what_waits(
    wakes: bool, request: pytest.FixtureRequest
) -> None:
    """Also one that wakes nobody: so it is when it comes just before the wait."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    main, stopped, ended = threading.main_thread().ident, Event(), set[str]()
    assert main is not None

    def first(piece: Piece[None]) -> None:
        piece.let_next()
        assert stopped.wait(60)
        ended.add("first")

    def second(piece: Piece[None]) -> None:
        signal.pthread_kill(main if wakes else threading.get_ident(), signal.SIGINT)
        try:
            piece.wait()
        except Stopped:
            ended.add("second")

    outcomes = overlapping([first, second], stopped.set)
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)
    assert ended == {"first", "second"}
