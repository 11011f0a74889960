import pytest

from tile_infer.cli.progress import clock, describe
from tile_infer.cli.summary import area_text
from tile_infer.cli.wording import as_options
from tile_infer.engine.pipeline import Progress


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tile=(5, 5) is too small", "--tile (5, 5) is too small"),
        ("device_memory=4 is not possible", "--device-memory 4 is not possible"),
        ("use device=cpu or device=auto", "use --device cpu or --device auto"),
        ("choose another place with out", "choose another place with --out"),
        ("the halo and threshold of it", "the halo and threshold of it"),
        ("leave axes out", "leave --axes out"),
        ("overlap needs blend: an", "--overlap needs --blend: an"),
        ("normalize=unit and mean/std contradict", "--normalize unit and --mean/--std contradict"),
        ("mpp and level contradict: both", "--mpp and --level contradict: both"),
        ("use overwrite to start again", "use --overwrite to start again"),
        ("if it has ended, give break_lock=True", "if it has ended, give --break-lock"),
        ("network=Truetype.onnx is missing", "--network Truetype.onnx is missing"),
        ("use tile-infer a.tif", "use tile-infer a.tif"),
        ("use the output of the network", "use the output of the network"),
        ("/data/level=3/slide.tif is empty", "/data/level=3/slide.tif is empty"),
        ("the halo is 3", "the halo is 3"),
    ],
)
def test_settings_in_a_message_are_spelt_as_options(text: str, expected: str) -> None:
    assert as_options(text) == expected
    assert as_options(expected) == expected


def test_progress_tells_blocks_speed_and_time_left() -> None:
    assert describe(Progress(1, 4, 1_000_000, 4_000_000, 2.0)) == (
        "1/4 blocks, 0.50 MPix/s, 0:06 left"
    )


def test_progress_of_a_resumed_run_counts_only_its_own_pixels() -> None:
    assert describe(Progress(8, 10, 0, 2_000_000, 0.0)) == "8/10 blocks"
    assert describe(Progress(9, 10, 1_000_000, 2_000_000, 100.0)) == (
        "9/10 blocks, 0.01 MPix/s, 1:40 left"
    )


def test_long_times_have_hours() -> None:
    assert clock(59.6) == "1:00"
    assert clock(100 * 3600 + 61) == "100:01:01"


@pytest.mark.parametrize(
    ("area", "unit", "expected"),
    [
        (0.0, "micrometer", "0 um2"),
        (12.345, "micrometer", "12.35 um2"),
        (9_999.0, "micrometer", "9999 um2"),
        (1e7, "micrometer", "10 mm2"),
        (2.5e6, "meter", "2.5 km2"),
        (3.0, "parsec", "3 parsec^2"),
    ],
)
def test_an_area_is_told_in_a_unit_of_its_size(area: float, unit: str, expected: str) -> None:
    assert area_text(area, unit) == expected
