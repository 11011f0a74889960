"""Slides through OpenSlide."""

import builtins
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.slide import SlideSource, over_background
from tile_infer.engine.sources.slide_files import slide_files
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError, MissingExtraError, SettingError

from .dicom_slides import TILE_PX as DICOM_TILE_PX
from .dicom_slides import jpeg_of, tiles_of, write_dicom_slide
from .mirax_slides import MISSING, TILE_PX, write_mrxs, write_vms

DATA = Path(
    os.environ.get("TILE_INFER_TEST_DATA") or Path(__file__).resolve().parents[3] / "../shared/data"
)
SLIDE = DATA / "slides/CMU-1-Small-Region.svs"

Levels = list[NDArray[np.uint8]]


def noise(*sizes: tuple[int, int], seed: int = 0) -> Levels:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.fixture
def levels() -> Levels:
    """Larger than the tiles that are kept decoded, in both directions."""
    return noise((1200, 2200), (600, 1100), (300, 550))


@pytest.fixture
def slide(tmp_path: Path, levels: Levels) -> Path:
    write_dicom_slide(tmp_path / "slide", levels)
    return tmp_path / "slide"


@pytest.fixture
def source(slide: Path) -> Iterator[SlideSource]:
    with closing(SlideSource(slide)) as opened:
        yield opened


def whole(source: Any, level: int = 0) -> NDArray[Any]:
    height, width = source.facts.levels[level].shape
    return np.asarray(source.read(level, Box.of(0, height, 0, width)))


def test_dicom_folder_or_any_file_of_it_gives_levels_and_pixel_sizes(slide: Path) -> None:
    for path in (slide, *sorted(slide.iterdir())):
        with closing(open_source(path)) as source:
            facts = source.facts
        assert [level.shape for level in facts.levels] == [(1200, 2200), (600, 1100), (300, 550)]
        sizes = [level.pixel_size for level in facts.levels]
        assert sizes == [pytest.approx((m, m)) for m in (0.5, 1.0, 2.0)]
        assert (facts.dtype, facts.channels, facts.unit) == ("uint8", 3, "micrometer")
        assert facts.name == path.name


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_is_what_was_written(source: SlideSource, levels: Levels, level: int) -> None:
    np.testing.assert_array_equal(whole(source, level), levels[level])


def test_jpeg_tiles_of_a_dicom_become_rgb(tmp_path: Path) -> None:
    y, x = np.mgrid[:130, :200]
    pixels = np.stack([y, x, y + x // 2], -1).astype(np.uint8)
    write_dicom_slide(tmp_path / "slide", [pixels], jpeg=True)
    decoded = [imagecodecs.jpeg_decode(jpeg_of(tile)) for tile in tiles_of(pixels)]
    rows = [np.concatenate(decoded[i : i + 4], 1) for i in range(0, len(decoded), 4)]
    assert rows[0].shape == (DICOM_TILE_PX, 4 * DICOM_TILE_PX, 3)
    with closing(SlideSource(tmp_path / "slide")) as source:
        np.testing.assert_array_equal(whole(source), np.concatenate(rows)[:130, :200])


def test_any_box_and_channels_are_cut_from_the_whole(source: SlideSource, levels: Levels) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        y0, y1 = sorted(rng.integers(0, 1201, 2).tolist())
        x0, x1 = sorted(rng.integers(0, 2201, 2).tolist())
        got = source.read(0, Box.of(y0, y1, x0, x1), (2, 0))
        np.testing.assert_array_equal(got, levels[0][y0:y1, x0:x1][..., [2, 0]])


def test_pixel_has_one_value_in_all_boxes_where_a_level_is_no_whole_number_smaller(
    tmp_path: Path,
) -> None:
    full, lower = noise((2500, 1999), (1247, 997))
    write_dicom_slide(tmp_path / "odd", [full, lower])
    with closing(SlideSource(tmp_path / "odd")) as source:
        image = whole(source, 1)
        for y, x in ((7, 3), (1001, 501), (1100, 900)):
            got = source.read(1, Box.of(y, y + 40, x, x + 40))
            np.testing.assert_array_equal(got, image[y : y + 40, x : x + 40])
        np.testing.assert_array_equal(image[:1000], lower[:1000])  # the first tile is not moved
        import openslide

        # Asked directly, pixels depend on the box: why the source keeps tiles on a grid.
        with openslide.OpenSlide(tmp_path / "odd" / "level0.dcm") as plain:
            scale = plain.level_downsamples[1]
            region = plain.read_region((round(501 * scale), round(701 * scale)), 1, (40, 40))
        assert (np.asarray(region)[..., :3] != lower[701:741, 501:541]).any()


def test_threads_reading_at_once_get_the_same_pixels(source: SlideSource, levels: Levels) -> None:
    boxes = [Box.of(y, y + 300, x, x + 300) for y in range(0, 900, 150) for x in range(0, 1900, 95)]
    source.cache.max_bytes = 0
    with ThreadPoolExecutor(4) as pool:
        for box, got in zip(boxes, pool.map(lambda b: source.read(0, b), boxes), strict=True):
            np.testing.assert_array_equal(got, levels[0][box.slices])


@pytest.mark.skipif(not SLIDE.exists(), reason=f"no {SLIDE.name} in the data folder")
def test_aperio_slide_equals_the_tiff_source() -> None:
    with closing(SlideSource(SLIDE)) as slide, closing(open_source(SLIDE)) as tiff:
        assert type(tiff) is not SlideSource
        assert slide.facts.levels[0].shape == tiff.facts.levels[0].shape
        assert slide.facts.levels[0].pixel_size == tiff.facts.levels[0].pixel_size
        for box in (Box.of(0, 2967, 0, 2220), Box.of(333, 777, 1001, 1555)):
            np.testing.assert_array_equal(slide.read(0, box), tiff.read(0, box))


def test_transparent_pixels_show_the_background() -> None:
    rgba = np.array([[[9, 8, 7, 255], [9, 8, 7, 0], [200, 100, 0, 128]]], np.uint8)
    grey = np.array([100, 100, 100], np.uint8)
    assert over_background(rgba, grey).tolist() == [[[9, 8, 7], [100] * 3, [150, 100, 50]]]
    np.testing.assert_array_equal(over_background(rgba[:, :1], grey), rgba[:, :1, :3])


def test_identity_ignores_the_path_and_sees_every_file(tmp_path: Path, slide: Path) -> None:
    def identity(path: Path) -> str:
        with closing(open_source(path)) as source:
            return source.facts.identity

    first = identity(slide)
    copy = tmp_path / "copy"
    shutil.copytree(slide, copy)
    assert identity(copy) == identity(copy / "level1.dcm") == first
    (copy / "notes.txt").write_text("not of the slide")
    write_dicom_slide(tmp_path / "other", noise((80, 80)))
    shutil.copy(tmp_path / "other" / "level0.dcm", copy / "other.dcm")
    assert identity(copy / "level0.dcm") == first
    changed = bytearray((copy / "level2.dcm").read_bytes())
    changed[-5] ^= 1
    (copy / "level2.dcm").write_bytes(changed)
    assert identity(copy / "level0.dcm") != first


def test_folder_of_several_slides_is_refused_with_their_files(tmp_path: Path) -> None:
    write_dicom_slide(tmp_path / "two", noise((80, 80)))
    other = write_dicom_slide(tmp_path / "other", noise((90, 90)))[0]
    shutil.copy(other, tmp_path / "two" / "z.dcm")
    with pytest.raises(ImageError, match=r"must hold one slide; .*level0\.dcm.*z\.dcm"):
        open_source(tmp_path / "two")
    with closing(open_source(tmp_path / "two" / "z.dcm")) as source:
        assert source.facts.levels[0].shape == (90, 90)


def test_files_of_a_mirax_or_hamamatsu_slide_are_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data0000.dat", "b.mrxs", "x.jpg", "y.jpg"):
        (tmp_path / name).write_bytes(b"0")
    (tmp_path / "c.vms").write_text("[Virtual Microscope Specimen]\nImageFile=x.jpg\n")
    mirax = [path.name for path in slide_files(tmp_path / "a.mrxs", {})]
    assert mirax == ["a.mrxs", "Data0000.dat", "Slidedat.ini"]
    assert [path.name for path in slide_files(tmp_path / "b.mrxs", {})] == ["b.mrxs"]
    assert [path.name for path in slide_files(tmp_path / "c.vms", {})] == ["c.vms", "x.jpg"]


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_slide_that_is_cut_short_is_refused_in_one_line(slide: Path, share: float) -> None:
    file = slide / "level0.dcm"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    wanted = pytest.raises(ImageError, match=r"level0\.dcm.*get (a good copy|all of them)")
    with wanted as refused, closing(open_source(file)) as source:
        whole(source)
    assert "\n" not in str(refused.value)


def test_pixels_that_cannot_be_read_are_named(tmp_path: Path, levels: Levels) -> None:
    file = write_dicom_slide(tmp_path / "slide", levels)[0]
    source = SlideSource(file)
    source.close()
    with pytest.raises(ImageError, match=r"level 0, pixels y 1024:1200, x 0:1024 cannot"):
        source.read(0, Box.of(1100, 1101, 5, 9))
    source.close()


def test_dicom_that_is_no_slide_and_mirax_without_its_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ct.dcm").write_bytes(bytes(128) + b"DICM" + bytes(1000))
    tifffile.imwrite(tmp_path / "a.mrxs", np.zeros((40, 40), np.uint8))
    for name in ("ct.dcm", "a.mrxs"):
        with pytest.raises(ImageError, match=rf"{name}.*get"):
            open_source(tmp_path / name)


def test_ventana_tiff_is_left_to_openslide(tmp_path: Path) -> None:
    path = tmp_path / "ventana.tif"
    pixels = noise((80, 80))[0]
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        tile=(16, 16),
        software="ScanOutputManager 1.1",
        extratags=[(700, 1, 8, b"<iScan/>", True)],
    )
    with pytest.raises(ImageError, match=r"ventana\.tif (cannot be opened as a|is no) slide"):
        open_source(path)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(16, 16))
    with closing(open_source(path)) as source:
        np.testing.assert_array_equal(whole(source), pixels)


def test_axes_and_pages_are_refused(slide: Path) -> None:
    for choice in ({"axes": "YXC"}, {"page": 1}, {"series": 1}, {"z": 2}):
        with pytest.raises(SettingError):
            open_source(slide, **choice)
    open_source(slide, page=0, series=0).close()


def test_without_openslide_the_extra_is_named(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "openslide":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"level0\.dcm.*pip install openslide-python"):
        open_source(slide)


def test_mrxs_shows_its_levels_over_its_fill_colour(tmp_path: Path) -> None:
    expected = write_mrxs(tmp_path / "a.mrxs", columns=26, rows=12, fill=(10, 20, 30))
    with closing(open_source(tmp_path / "a.mrxs")) as source:
        facts = source.facts
        assert [level.shape for level in facts.levels] == [(768, 1664), (384, 832)]
        assert [level.pixel_size for level in facts.levels] == [(0.25, 0.25), (0.5, 0.5)]
        for level, pixels in enumerate(expected):
            np.testing.assert_array_equal(whole(source, level), pixels)
        y, x = MISSING[1] * TILE_PX, MISSING[0] * TILE_PX
        got = source.read(0, Box.of(y, y + TILE_PX, x, x + TILE_PX))
        assert np.unique(got.reshape(-1, 3), axis=0).tolist() == [[10, 20, 30]]


def test_mrxs_is_told_apart_by_its_data_and_refused_without_them(tmp_path: Path) -> None:
    path, data = tmp_path / "a.mrxs", tmp_path / "a" / "Data0000.dat"
    write_mrxs(path, columns=4, rows=4, fill=(255, 255, 255))
    with closing(open_source(path)) as source:
        first = source.facts.identity
    content = data.read_bytes()
    data.write_bytes(content[:-40] + bytes(40))
    with closing(open_source(path)) as source:
        assert source.facts.identity != first
    data.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(ImageError, match=r"a\.mrxs.*get a good copy"):
        whole(open_source(path))
    data.unlink()
    with pytest.raises(ImageError, match=r"a\.mrxs.*get a good copy, with all files"):
        whole(open_source(path))


def test_vms_is_joined_from_its_pictures(tmp_path: Path) -> None:
    left, right = noise((512, 640), (512, 640))
    expected = write_vms(tmp_path / "a.vms", left, right)
    with closing(open_source(tmp_path / "a.vms")) as source:
        assert source.facts.levels[0].pixel_size == (0.5, 0.5)
        np.testing.assert_array_equal(whole(source), expected)
