import os
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.sources import open_source, raster
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError, SettingError

RNG = np.random.default_rng(0)
BOX = Box.of(3, 17, 5, 29)
DATA = Path(
    os.environ.get("TILE_INFER_TEST_DATA") or Path(__file__).resolve().parents[3] / "../shared/data"
)


def noise(*shape: int, dtype: Any = np.uint8) -> NDArray[Any]:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


def jp2(pixels: NDArray[Any], container: str) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat=container))


LOSSLESS: dict[str, tuple[NDArray[Any], Any, int | None]] = {
    "grey PNG": (noise(40, 60), imagecodecs.png_encode, None),
    "16-bit PNG": (noise(40, 60, dtype=np.uint16), imagecodecs.png_encode, None),
    "RGB PNG": (noise(40, 60, 3), imagecodecs.png_encode, None),
    "RGBA PNG": (noise(40, 60, 4), imagecodecs.png_encode, 3),
    "grey-alpha PNG": (noise(40, 60, 2), imagecodecs.png_encode, 1),
    "JP2": (noise(40, 60, 3), lambda a: jp2(a, "jp2"), None),
    "16-bit JP2": (noise(40, 60, dtype=np.uint16), lambda a: jp2(a, "jp2"), None),
    "signed J2K": (noise(40, 60, dtype=np.int16), lambda a: jp2(a, "j2k"), None),
    "grey BMP": (noise(40, 60), imagecodecs.bmp_encode, None),
    "RGB BMP": (noise(40, 60, 3), imagecodecs.bmp_encode, None),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_pixels_and_facts_are_those_written_whatever_the_name(tmp_path: Path, kind: str) -> None:
    pixels, encode, alpha = LOSSLESS[kind]
    path = tmp_path / "picture.dat"
    path.write_bytes(encode(pixels))
    source = open_source(path)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    facts = source.facts
    assert (facts.levels[0].shape, facts.channels) == (pixels.shape[:2], pixels.shape[2])
    assert (facts.dtype, facts.alpha) == (pixels.dtype.name, alpha)
    assert facts.axes == ("YX" if facts.channels == 1 else "YXC")
    got = source.read(0, BOX)
    np.testing.assert_array_equal(got, pixels[BOX.slices])
    assert got.dtype == pixels.dtype
    got[...] = 0  # a copy
    last = facts.channels - 1
    np.testing.assert_array_equal(
        source.read(0, BOX, (last, 0)), pixels[BOX.slices][..., [last, 0]]
    )
    source.close()


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_its_decoder(tmp_path: Path, channels: int) -> None:
    ramp = np.mgrid[0:40, 0:60].sum(0).astype(np.uint8)
    pixels = np.ascontiguousarray(
        np.dstack([ramp, 255 - ramp, ramp // 2])[..., :channels].squeeze()
    )
    data = imagecodecs.jpeg8_encode(pixels, level=95)
    (tmp_path / "a.jpg").write_bytes(data)
    source = open_source(tmp_path / "a.jpg")
    assert source.facts.channels == channels
    got = source.read(0, Box.of(0, 40, 0, 60)).squeeze()
    np.testing.assert_array_equal(got, imagecodecs.jpeg8_decode(data))
    assert np.abs(got.astype(int) - pixels).mean() < 3
    source.close()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def palette_png(*extra: bytes) -> bytes:
    """Return a 4 x 2 picture whose pixels are indices 0 1 2 1 and 2 2 0 0."""
    head = struct.pack(">IIBBBBB", 4, 2, 8, 3, 0, 0, 0)
    rows = zlib.compress(bytes([0, 0, 1, 2, 1, 0, 2, 2, 0, 0]))
    parts = [png_chunk(b"IHDR", head), png_chunk(b"PLTE", bytes(range(10, 19))), *extra]
    parts += [png_chunk(b"IDAT", rows), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_palette_of_a_png_becomes_its_colours(tmp_path: Path) -> None:
    colours = np.arange(10, 19, dtype=np.uint8).reshape(3, 3)
    expected = colours[[[0, 1, 2, 1], [2, 2, 0, 0]]]
    (tmp_path / "a.png").write_bytes(palette_png())
    (tmp_path / "b.png").write_bytes(palette_png(png_chunk(b"tRNS", b"\x07")))
    plain, clear = (open_source(tmp_path / name) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(plain.read(0, Box.of(0, 2, 0, 4)), expected)
    np.testing.assert_array_equal(clear.read(0, Box.of(0, 2, 0, 4), (0, 1, 2)), expected)
    assert (plain.facts.alpha, clear.facts.alpha) == (None, 3)


def test_file_is_decoded_once_and_only_when_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def decode(data: bytes) -> Any:
        decoded.append(len(data))
        return imagecodecs.png_decode(data)

    png = raster.RASTERS[0]._replace(decode=decode)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(noise(40, 60)))
    source = raster.RasterSource(png, tmp_path / "a.png")
    assert decoded == []
    source.read(0, BOX)
    source.read(0, BOX)
    assert len(decoded) == 1
    source.close()
    with pytest.raises(ImageError, match="closed"):
        source.read(0, BOX)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_picture_larger_than_the_free_memory_is_refused_before_decoding(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, encode, _ = LOSSLESS[kind]
    path = tmp_path / "a.dat"
    path.write_bytes(encode(pixels))
    monkeypatch.setattr(raster, "available_bytes", lambda: pixels.nbytes - 1)
    monkeypatch.setattr(raster.RasterSource, "_decoded", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"a\.dat needs .* are free; convert it to a tiled TIFF"):
        open_source(path)


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.99])
@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG"])
def test_file_cut_short_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    if kind == "JPEG":
        data = imagecodecs.jpeg8_encode(noise(40, 60, 3), level=90)
    else:
        pixels, encode, _ = LOSSLESS[kind]
        data = encode(pixels)
    path = tmp_path / "cut.dat"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=r"cut\.dat") as caught:
        open_source(path).read(0, BOX)
    assert "\n" not in str(caught.value)


def test_jpeg_of_inks_is_refused(tmp_path: Path) -> None:
    frame = struct.pack(">BHHB", 8, 40, 60, 4) + bytes(12)
    data = b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame + bytes(100)
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match="inks"):
        open_source(tmp_path / "a.jpg")


@pytest.mark.parametrize("choice", [{"page": 1}, {"series": 1}, {"z": 2}, {"axes": "YXC"}])
def test_choice_that_no_picture_has_is_refused(tmp_path: Path, choice: dict[str, Any]) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(noise(40, 60)))
    with pytest.raises(SettingError, match=r"a\.png"):
        open_source(tmp_path / "a.png", **choice)
    open_source(tmp_path / "a.png", page=0, series=0)


@pytest.mark.parametrize(
    ("head", "name"), [(b"GIF89a", "GIF"), (b"RIFF\0\0\0\0WEBP", "WebP"), (b"%PDF-1.7", "PDF")]
)
def test_formats_that_are_not_read_are_named(tmp_path: Path, head: bytes, name: str) -> None:
    (tmp_path / "a.png").write_bytes(head + bytes(100))
    with pytest.raises(ImageError, match=rf"a\.png is a {name}.*JPEG 2000.*convert it to TIFF"):
        open_source(tmp_path / "a.png")


PHOTOGRAPH = DATA / "nuclei/histo.jpg"


@pytest.mark.skipif(
    not PHOTOGRAPH.exists(), reason="no histo.jpg; set TILE_INFER_TEST_DATA to the data folder"
)
def test_real_jpeg_equals_its_decoder() -> None:
    expected = imagecodecs.jpeg8_decode(PHOTOGRAPH.read_bytes())
    source = open_source(PHOTOGRAPH)
    height, width = source.facts.levels[0].shape
    np.testing.assert_array_equal(source.read(0, Box.of(0, height, 0, width)), expected)
    source.close()


@pytest.mark.parametrize(
    ("at", "value", "word"),
    [
        (18, 655_390, "ends before"),
        (22, -655_390, "ends before"),
        (10, 1 << 30, "ends before"),
        (18, -60, "sound"),
        (10, 20, "sound"),
        (46, 70_000, "sound"),
        (30, 1, "compression 1"),
        (14, 12, "12 bytes"),
    ],
)
def test_bmp_whose_header_lies_never_reaches_the_decoder(
    tmp_path: Path, at: int, value: int, word: str
) -> None:
    data = bytearray(imagecodecs.bmp_encode(noise(40, 60, 3)))
    data[at : at + 4] = struct.pack("<q", value)[:4]
    (tmp_path / "a.bmp").write_bytes(data)
    with pytest.raises(ImageError, match=rf"a\.bmp cannot be opened as BMP: .*{word}"):
        open_source(tmp_path / "a.bmp")
