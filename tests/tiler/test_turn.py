"""Turning a picture and back."""

import numpy as np
import pytest

from tile_infer.tiler.box import Box
from tile_infer.tiler.turn import DIHEDRAL, FLIPS, Turn

PICTURE = np.arange(2 * 5 * 7 * 3).reshape(2, 5, 7, 3)


def test_there_are_eight_turns_and_four_of_them_are_flips() -> None:
    turned = {turn.apply(PICTURE, 1).tobytes() for turn in DIHEDRAL}
    assert len(turned) == 8
    assert [turn for turn in DIHEDRAL if not turn.transpose] == list(FLIPS)
    assert FLIPS[0].is_none
    assert not FLIPS[1].is_none


@pytest.mark.parametrize("turn", DIHEDRAL)
def test_undo_takes_a_turn_back_along_its_own_axes(turn: Turn) -> None:
    turned = turn.apply(PICTURE, 1)
    assert turned.shape == (2, *turn.size((5, 7)), 3)
    assert np.array_equal(turn.undo(turned, 1), PICTURE)


@pytest.mark.parametrize("turn", DIHEDRAL)
def test_a_rectangle_is_found_where_it_was_before(turn: Turn) -> None:
    picture = PICTURE[0]
    turned = turn.apply(picture)
    box = Box.of(1, 3, 2, 4)
    before = turn.box_before(box, turn.size((5, 7)))
    assert np.array_equal(turn.apply(picture[before.slices]), turned[box.slices])
