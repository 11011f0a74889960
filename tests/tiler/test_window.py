"""Window weights sum to one, whatever the window, the size and the step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_infer.tiler.errors import SettingError
from tile_infer.tiler.window import WINDOWS, partition_of_unity


@given(kind=st.sampled_from(sorted(WINDOWS)), size=st.integers(1, 300), data=st.data())
def test_shifted_copies_sum_to_one(kind: str, size: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, size))
    weights = partition_of_unity(kind, size, step)
    total = np.zeros(size * 4)
    for start in range(0, size * 3, step):
        total[start : start + size] += weights
    np.testing.assert_allclose(total[size : 3 * size - step], 1, rtol=0, atol=1e-12)


def test_the_bare_window_does_not_sum_to_one() -> None:
    bare = WINDOWS["gaussian"](96)
    assert abs(bare[:48] + bare[48:] - 1).max() > 0.1


@given(kind=st.sampled_from(sorted(WINDOWS)), size=st.integers(1, 300))
def test_every_pixel_of_a_tile_counts_and_none_negatively(kind: str, size: int) -> None:
    assert (partition_of_unity(kind, size, max(1, size // 2)) > 0).all()


@pytest.mark.parametrize("step", [0, 97])
def test_tiles_that_leave_gaps_are_refused(step: int) -> None:
    with pytest.raises(SettingError, match="leave gaps"):
        partition_of_unity("hann", 96, step)


def test_an_unknown_window_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match="'flat' is unknown; use one of hann, gaussian"):
        partition_of_unity("flat", 96, 48)
