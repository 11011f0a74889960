import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_infer.engine.sources.choice import Choice
from tile_infer.tiler.errors import ImageError, SettingError


def plane(choice: Choice, **axes: int) -> tuple[int, ...]:
    return choice.plane_of(list(axes), list(axes.values()), "image", "T (3), Z (5), Q (2)")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_page_counts_all_planes_once_in_stored_order(
    lengths: list[int], data: st.DataObject
) -> None:
    axes = dict(zip("tzq", lengths, strict=False))
    count = math.prod(lengths)
    planes = [plane(Choice(page=page), **axes) for page in range(count)]
    assert planes == sorted(set(planes))
    assert planes[-1] == tuple(n - 1 for n in lengths)
    mend = f"use page=0 to {count - 1}$" if count > 1 else "one plane is left .*leave page out$"
    with pytest.raises(SettingError, match=mend):
        plane(Choice(page=count), **axes)


def test_page_counts_over_the_axes_that_z_and_t_leave() -> None:
    assert plane(Choice(t=2, z=4, page=1), T=3, Z=5, Q=2) == (2, 4, 1)
    assert plane(Choice(z=4, page=5), T=3, Z=5, Q=2) == (2, 4, 1)
    assert plane(Choice(page=29), T=3, Z=5, Q=2) == (2, 4, 1)


def test_axes_of_one_plane_need_no_choice() -> None:
    assert plane(Choice(), T=1, Z=1) == (0, 0)
    assert plane(Choice(page=0, z=0, t=0)) == ()


def test_stack_without_a_choice_names_its_axes_and_the_ways_to_choose() -> None:
    with pytest.raises(ImageError) as caught:
        plane(Choice(), T=3, Z=5, Q=2)
    assert str(caught.value) == (
        "one plane of a stack is read at a time; image has the axes T (3), Z (5), Q (2); "
        "choose it with t=0 to 2 and z=0 to 4, or page=0 to 29"
    )
    with pytest.raises(ImageError, match=r"t=0 to 2, or page=0 to 2$"):
        plane(Choice(z=1), T=3, Z=5)
    with pytest.raises(ImageError, match=r"choose it with page=0 to 12$"):
        plane(Choice(), I=13)


@pytest.mark.parametrize(("choice", "mend"), [(Choice(z=5), "z=0 to 4"), (Choice(t=3), "t=0 to 2")])
def test_index_that_is_not_there_is_refused_with_the_range(choice: Choice, mend: str) -> None:
    with pytest.raises(SettingError, match=mend):
        plane(choice, T=3, Z=5)


def test_an_axis_that_is_not_there_is_told_with_what_chooses_instead() -> None:
    with pytest.raises(SettingError) as caught:
        Choice(z=1).plane_of(["Q"], [6], "image", "unnamed (6), Y (4), X (4)")
    assert str(caught.value) == (
        "z=1: image has no axis Z, but unnamed (6), Y (4), X (4); use page=0 to 5"
    )
    with pytest.raises(SettingError, match=r"no axis T, but .*; leave t out$"):
        plane(Choice(t=1))


@pytest.mark.parametrize("name", ["page", "series", "z", "t"])
def test_negative_index_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name}=-1"):
        Choice(**{name: -1})
