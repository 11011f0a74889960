"""TIFFs that lie are refused in one line, before they cost time or memory."""

import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tile_infer.engine.memory import peak_rss_bytes
from tile_infer.engine.sources import open_source, tiff_pages
from tile_infer.engine.sources.positional_file import PositionalFile
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError

COLOURS = np.random.default_rng(3).integers(0, 256, (96, 80, 3), np.uint8)
GREY = COLOURS[..., 0]
LITTLE_BYTES = 200 << 20
"""More than reading these files takes, and far less than what they announce."""


def read(path: Path) -> Any:
    with closing(open_source(path)) as source:
        height, width = source.facts.levels[0].shape
        return source.read(0, Box.of(0, min(height, 96), 0, min(width, 80)))


def refusal(path: Path) -> str:
    before = peak_rss_bytes()
    with pytest.raises(ImageError) as caught:
        read(path)
    assert peak_rss_bytes() - before < LITTLE_BYTES
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    return text


def set_tag(path: Path, code: int, *values: int) -> None:
    """Overwrite a tag of the first page in place, its number of values kept."""
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[code]
        count = tag.count
        place, kind = tag.valueoffset, {3: "H", 4: "I", 16: "Q"}[tag.dtype]
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{count}{kind}", data, place, *(values * count)[:count])
    path.write_bytes(data)


def tiled(path: Path, compression: str, pixels: Any = COLOURS) -> Path:
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, tile=(48, 80), compression=compression, photometric=photometric)
    return path


def with_frame(path: Path, magic: bytes, first: int, code: str, sizes: tuple[int, ...]) -> None:
    """Let every picture in a file state another size."""
    data = bytearray(path.read_bytes())
    at = data.find(magic)
    assert at > 0
    while at >= 0:
        struct.pack_into(code, data, at + first, *sizes)
        at = data.find(magic, at + 1)
    path.write_bytes(data)


FRAMES: dict[str, Callable[[Path, tuple[int, int]], None]] = {
    "jpeg": lambda path, size: with_frame(path, b"\xff\xc0", 5, ">HH", size),
    "jpeg2000": lambda path, size: with_frame(path, b"\xff\x4f\xff\x51", 8, ">II", size[::-1]),
    "png": lambda path, size: with_frame(path, b"IHDR", 4, ">II", size[::-1]),
    "webp": lambda path, size: with_frame(
        path, b"VP8L", 9, "<I", ((size[0] - 1) << 14 | (size[1] - 1),)
    ),
}


@pytest.mark.parametrize("codec", FRAMES)
def test_picture_that_is_larger_than_its_tile_is_not_decoded(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "bomb.tif"
    options: dict[str, Any] = {"tile": (48, 80), "photometric": "rgb"}
    tifffile.imwrite(path, COLOURS, compression=codec, **options)
    FRAMES[codec](path, (48, 80))
    assert read(path).shape == (96, 80, 3)
    FRAMES[codec](path, (16_000, 16_000))
    text = refusal(path)
    assert "pixels y 0:48, x 0:80" in text
    assert "16000 x 16000 px, larger than its segment" in text


def test_frames_of_whole_blocks_and_of_one_more_component_are_decoded(tmp_path: Path) -> None:
    # JPEG strips of 5 rows: the decoder gives 5 of the 8 or 16 that are coded.
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, COLOURS, compression="jpeg", rowsperstrip=16, photometric="rgb")
    assert np.abs(read(path).astype(int) - COLOURS).mean() < 60


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
def test_bytes_that_cannot_hold_a_tile_are_not_unpacked(tmp_path: Path, compression: str) -> None:
    path = tiled(tmp_path / "short.tif", compression, np.zeros_like(GREY))
    assert not read(path).any()
    for code in (256, 257, 322, 323):
        set_tag(path, code, 16_384)
    with tifffile.TiffFile(path) as file:
        counts = len(file.pages.first.dataoffsets)
    assert counts == 2  # one is enough now
    assert "bytes cannot hold them" in refusal(path)


def test_bytes_of_one_value_are_unpacked_however_few_they_are(tmp_path: Path) -> None:
    blank = np.zeros((2048, 2048), np.uint8)
    path = tmp_path / "blank.tif"
    for compression in ("zlib", "lzw", "packbits", "zstd"):
        tifffile.imwrite(path, blank, compression=compression, rowsperstrip=2048)
        assert not read(path).any()


def test_tile_that_inflates_beyond_what_is_free_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiled(tmp_path / "bomb.tif", "zlib", GREY)
    again = zlib.compress(bytes(1 << 20), 9)
    data = path.read_bytes()
    path.write_bytes(data + again)
    set_tag(path, 324, len(data))
    set_tag(path, 325, len(again))
    set_tag(path, 322, 40_000)
    set_tag(path, 323, 40_000)
    monkeypatch.setattr(tiff_pages, "available_bytes", lambda: 1 << 30)
    assert "40000 x 40000 px that need 1.5 GB, and 1.0 GB are free" in refusal(path)
    set_tag(path, 257, 1)  # the whole tile is decoded, however little of it is in the image
    assert "40000 x 40000 px that need 1.5 GB" in refusal(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tag", [256, 257])
def test_sizes_beyond_the_file_are_refused_when_it_is_opened(
    tmp_path: Path, tag: int, compression: str | None
) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, GREY, tile=(16, 16), compression=compression)
    assert (read(path)[..., 0] == GREY).all()
    set_tag(path, tag, 1 << 31)
    assert "the file says where 30 of their" in refusal(path)


@pytest.mark.parametrize("tag", [256, 257])
def test_plain_pixels_beyond_the_file_are_refused_when_it_is_opened(
    tmp_path: Path, tag: int
) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, GREY, rowsperstrip=96)
    assert (read(path)[..., 0] == GREY).all()
    set_tag(path, tag, 1 << 31)
    assert "bytes, and the file has" in refusal(path)


def test_byte_count_beyond_the_file_makes_no_buffer(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"0123456789")
    with closing(PositionalFile(path)) as file:
        assert file.read(4, 1 << 60) == b"456789"
        assert file.read(1 << 50, 1 << 60) == b""
        assert file.read(2, 3) == b"234"


def pages(path: Path, count: int) -> list[int]:
    """Write pages; return where each says where the next begins."""
    with tifffile.TiffWriter(path) as file:
        for _ in range(count):
            file.write(GREY[:4, :4], contiguous=False, metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        return [page.offset + 2 + 12 * len(page.tags) for page in file.pages]


@pytest.mark.parametrize(("count", "target"), [(2, 0), (3, 2), (130, 0), (130, 125)])
def test_directories_in_a_circle_are_refused(tmp_path: Path, count: int, target: int) -> None:
    path = tmp_path / "circle.tif"
    nexts = pages(path, count)
    with tifffile.TiffFile(path) as file:
        start = file.pages[target].offset
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, nexts[-1], start)
    path.write_bytes(data)
    assert f"lead back to byte {start} after {count} of them" in refusal(path)


def test_directories_upon_each_other_are_refused(tmp_path: Path) -> None:
    # Each begins four bytes after the one before: in a file of 100 kB they would be 800 MB.
    entries, count = 4000, 11_000
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    data += struct.pack("<H", entries) * (1 + 6 * entries)
    data += struct.pack(f"<{count}I", *(8 + 4 * number for number in range(1, count + 1)))
    path = tmp_path / "heap.tif"
    path.write_bytes(data)
    assert "the same places of the file again and again" in refusal(path)


def entries(*rows: tuple[int, int, int, int]) -> bytes:
    """Return a directory that nothing follows."""
    packed = b"".join(struct.pack("<HHII", *row) for row in rows)
    return struct.pack("<H", len(rows)) + packed + struct.pack("<I", 0)


def page(*more: tuple[int, int, int, int]) -> bytes:
    """Return the directory of a page of 2 x 2 grey pixels, which lie at byte 4."""
    rows = [(256, 4, 1, 2), (257, 4, 1, 2), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    rows += [(273, 4, 1, 4), (277, 3, 1, 1), (278, 4, 1, 2), (279, 4, 1, 4), *more]
    return entries(*rows)


def test_one_long_value_listed_again_and_again_is_refused(tmp_path: Path) -> None:
    # 2000 lists of where strips lie, all in the same 400 kB: numbers that would fill 6 GB.
    path, count = tmp_path / "lists.tif", 100_000
    for times in (1, 2000):
        values = bytes(4 * count)
        directory = page(*[(273, 4, count, 8)] * times)
        start = struct.pack("<I", 8 + len(values))
        path.write_bytes(b"II*\0" + start + values + directory)
        if times == 1:
            assert read(path).shape == (2, 2, 1)
    assert "the same places of the file again and again" in refusal(path)


def test_one_smaller_image_listed_again_and_again_is_refused(tmp_path: Path) -> None:
    path, count = tmp_path / "levels.tif", 20_000
    inner = page()
    for places in ([8], [8] * count):
        values = struct.pack(f"<{len(places)}I", *places)
        at = 8 + len(inner)
        start = struct.pack("<I", at + len(values))
        place = at if len(places) > 1 else 8
        path.write_bytes(b"II*\0" + start + inner + values + page((330, 4, len(places), place)))
        if len(places) == 1:
            assert "one plane of a stack" in refusal(path)
    assert "the same places of the file again and again" in refusal(path)


def described(path: Path, before: str, after: str) -> None:
    """Change the description of the first page, whatever its length becomes."""
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[270]
        text = tag.value.encode() + b"\0"
        at = tag.offset
    data = bytearray(path.read_bytes())
    changed = text.replace(before.encode(), after.encode())
    assert changed != text
    struct.pack_into("<II", data, at + 4, len(changed), len(data))
    path.write_bytes(data + changed)


@pytest.mark.parametrize("number", [10**3, 10**9, 2**64])
def test_channels_that_only_the_description_has_are_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "stack.tif"
    stack = {"metadata": {"axes": "CYX"}, "photometric": "minisblack"}
    tifffile.imwrite(path, np.moveaxis(COLOURS, 2, 0), **stack)
    assert (read(path) == COLOURS).all()
    described(path, '"shape": [3', f'"shape": [{number}')
    assert f"has C ({number}), Y (96), X (80), and at most" in refusal(path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('SizeZ="1"', 'SizeZ="900000000"'),
        ('SizeT="1"', f'SizeT="{"9" * 5000}"'),
        ('SizeX="80"', 'SizeX="900000000000"'),
        ('PlaneCount="3"', 'PlaneCount="900000000"'),
    ],
)
def test_planes_that_only_ome_xml_has_are_refused(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "stack.ome.tif"
    stack = {"metadata": {"axes": "CYX"}, "photometric": "minisblack"}
    tifffile.imwrite(path, np.moveaxis(COLOURS, 2, 0), **stack)
    assert (read(path) == COLOURS).all()
    described(path, before, after)
    assert "at most 10000000 planes; the OME description of" in refusal(path)


def test_samples_that_do_not_come_out_are_told(tmp_path: Path) -> None:
    path = tiled(tmp_path / "none.tif", "lzma", GREY)
    assert (read(path)[..., 0] == GREY).all()
    set_tag(path, 277, 0)
    assert "0 of 1 samples came out" in refusal(path)


def test_pages_in_a_row_are_read_however_many_they_are(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    pages(path, 130)
    with closing(open_source(path, page=129)) as source:
        assert (source.read(0, Box.of(0, 4, 0, 4))[..., 0] == GREY[:4, :4]).all()
