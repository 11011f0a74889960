from dataclasses import fields

import pytest

from tile_infer.cli.options import (
    Options,
    bytes_of,
    device_of,
    integers_of,
    numbers_of,
    tile_of,
)
from tile_infer.engine.settings import Settings


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8000000", 8000000),
        ("4GB", 4 << 30),
        ("4gib", 4 << 30),
        ("512M", 512 << 20),
        ("1.5 MB", 3 << 19),
        (".5t", 1 << 39),
    ],
)
def test_a_size_may_have_a_unit(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4ZB", "-4GB", "4 4", "1e9", "4,5GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size; write it like 4GB"):
        bytes_of(text)


@pytest.mark.parametrize("text", ["4", "512", "100 kB", "0.1M"])
def test_a_size_whose_unit_was_forgotten_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too few for any run; write it like 4GB"):
        bytes_of(text)


def test_a_tile_is_height_and_width_or_one_number_for_both() -> None:
    assert tile_of("572") == (572, 572)
    assert tile_of("572x640") == (572, 640)
    assert tile_of("572X640") == (572, 640)


@pytest.mark.parametrize("text", ["", "x", "572x", "572x640x3", "572,640", "57.2"])
def test_what_is_no_tile_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no tile size"):
        tile_of(text)


def test_lists_are_separated_by_commas() -> None:
    assert integers_of("2,0,1") == (2, 0, 1)
    assert numbers_of("0.5,1,-2e-3") == (0.5, 1.0, -0.002)


@pytest.mark.parametrize("text", ["", "1,", "a,b", "1;2", "0.5"])
def test_what_is_no_list_of_integers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no list; write numbers like 0,1,2"):
        integers_of(text)


def test_only_known_devices_are_taken() -> None:
    for name in ("auto", "cpu", "cuda", "cuda:3", "cuda:0,2", "cpu,cpu"):
        assert device_of(name) == name
    for name in ("gpu", "cuda:", "cuda:x", "CPU ", "cuda:0,", "cuda,cpu", "cpu,", "auto,cpu"):
        with pytest.raises(ValueError, match="use auto, cpu, cuda, cuda:N or cuda:N,M"):
            device_of(name)


def test_every_setting_of_the_engine_has_its_option() -> None:
    assert {field.name for field in fields(Options)} == {field.name for field in fields(Settings)}


def test_options_reach_the_engine_under_their_own_names() -> None:
    given = Options(level=1, tile=(572, 640), mean=(0.5,), std=(0.25,), memory=1 << 30)
    assert given.settings() == Settings(
        level=1, tile=(572, 640), mean=(0.5,), std=(0.25,), memory=1 << 30
    )
