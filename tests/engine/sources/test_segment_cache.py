import numpy as np
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
