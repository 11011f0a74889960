"""Who waits for a thread that has ended is told."""

import ctypes
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tile_infer.engine import pool as pool_module
from tile_infer.engine.pool import first_of, result_of


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_LOOK_SECONDS", 0.01)


def end(thread: threading.Thread) -> None:
    """Let a thread end at its next step, wherever it is."""
    assert thread.ident is not None
    ended = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )
    assert ended == 1


def test_what_is_done_is_returned_and_the_rest_is_not_waited_for() -> None:
    go = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        slow, quick = pool.submit(go.wait), pool.submit(bool)
        assert first_of({slow, quick}, pool) == {quick}
        go.set()
        assert first_of([slow], pool) == {slow}


def test_a_failure_is_a_result() -> None:
    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(int, "no number")
        assert first_of([failed], pool) == {failed}


def test_a_thread_that_has_ended_is_told_to_who_waits() -> None:
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.current_thread).result()
        end(thread)
        lost = pool.submit(lambda: None)  # the thread takes it, and ends
        thread.join()
        with pytest.raises(RuntimeError, match="a thread has ended before its work was done"):
            first_of([lost], pool)
        assert not lost.done(), "without a look at the thread, this would be waited for"


def test_slow_work_is_waited_for() -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(time.sleep, 0.1)
        assert first_of([slow], pool) == {slow}


def test_what_would_end_a_thread_is_an_error_to_who_wants_the_result() -> None:
    with ThreadPoolExecutor(1) as pool:
        left, failed, done = pool.submit(sys.exit, 0), pool.submit(int, "no"), pool.submit(int, "7")
        with pytest.raises(RuntimeError, match="SystemExit in a thread"):
            result_of(left)
        with pytest.raises(ValueError, match="invalid literal"):
            result_of(failed)
        assert result_of(done) == 7
