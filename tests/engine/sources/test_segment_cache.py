from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.sources.segment_cache import SegmentCache


def kilobyte() -> NDArray[np.generic]:
    return np.zeros(1024, np.uint8)


def test_the_segment_unused_for_longest_goes_first() -> None:
    cache = SegmentCache(2048)
    for key in ("a", "b", "a", "c", "a"):
        cache.get(key, kilobyte)
    assert cache.decoded == 3
    cache.get("b", kilobyte)
    assert cache.decoded == 4


def test_a_segment_larger_than_the_cache_is_kept_until_the_next() -> None:
    cache = SegmentCache(10)
    for key in ("a", "a", "b", "a"):
        cache.get(key, kilobyte)
    assert cache.decoded == 3


def test_a_segment_is_dropped_with_its_last_use() -> None:
    cache = SegmentCache(1 << 20)
    left = iter([False, True, False])
    for _ in range(3):
        cache.get("a", kilobyte, lambda: next(left))
    assert cache.decoded == 2


def test_threads_that_miss_the_same_segment_decode_it_once() -> None:
    cache, together, decoding = SegmentCache(1 << 20), Barrier(2), Event()

    def slowly() -> NDArray[np.generic]:
        decoding.wait(0.2)  # long enough for the other to ask
        return kilobyte()

    def ask() -> NDArray[np.generic]:
        together.wait()
        return cache.get("a", slowly)

    with ThreadPoolExecutor(2) as pool:
        one, other = (pool.submit(ask) for _ in range(2))
    assert one.result() is other.result()
    assert cache.decoded == 1


@pytest.mark.parametrize("again", [kilobyte, lambda: np.ones(3)])
def test_a_segment_that_cannot_be_decoded_is_tried_again(
    again: Callable[[], NDArray[np.generic]],
) -> None:
    def broken() -> NDArray[np.generic]:
        raise OSError("gone")

    cache = SegmentCache(1 << 20)
    with pytest.raises(OSError, match="gone"):
        cache.get("a", broken)
    np.testing.assert_array_equal(cache.get("a", again), again())


@pytest.mark.parametrize("found", [None, SystemExit()])
def test_who_waits_for_a_segment_that_is_none_is_told(found: object) -> None:
    """Neither a decoder that gives no array nor one that ends its thread is waited for."""
    cache, decoding, asked = SegmentCache(1 << 20), Event(), Event()

    def useless() -> NDArray[np.generic]:
        decoding.set()
        asked.wait(0.2)  # long enough for the other to ask
        if isinstance(found, BaseException):
            raise found
        return found  # type: ignore[return-value]

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(cache.get, "a", useless)
        decoding.wait()
        other = pool.submit(cache.get, "a", kilobyte)
        for each in (one, other):
            assert isinstance(each.exception(timeout=60), AttributeError | SystemExit)
    np.testing.assert_array_equal(cache.get("a", kilobyte), kilobyte())
    assert cache.held_bytes == 1024
