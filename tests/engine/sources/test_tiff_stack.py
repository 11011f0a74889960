from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.sources import open_source
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError, SettingError

RNG = np.random.default_rng(0)


def noise(*shape: int) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, shape, np.uint8)


def read(path: Path, **choice: Any) -> NDArray[Any]:
    source = open_source(path, **choice)
    height, width = source.facts.levels[0].shape
    pixels = source.read(0, Box.of(0, height, 0, width))
    source.close()
    return pixels


def choice_of(name: str) -> dict[str, Any]:
    return {name: 1}


@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "CTZYX", "TZCYXS"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}])
def test_every_plane_of_an_ome_stack(tmp_path: Path, axes: str, options: dict[str, Any]) -> None:
    lengths = {"T": 3, "C": 1 if "S" in axes else 2, "Z": 4, "Y": 20, "X": 30, "S": 3}
    pixels = noise(*[lengths[a] for a in axes])
    path = tmp_path / "a.ome.tif"
    photometric = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(path, pixels, metadata={"axes": axes}, photometric=photometric, **options)
    channel = "S" if "S" in axes else "C"
    ordered = pixels.transpose(
        [axes.index(a) for a in "TZYX"]
        + [axes.index(channel)]
        + [i for i, a in enumerate(axes) if a == "C" and channel == "S"]
    )
    ordered = ordered.reshape(3, 4, 20, 30, -1)
    for t in range(3):
        for z in range(4):
            np.testing.assert_array_equal(read(path, t=t, z=z), ordered[t, z])
            np.testing.assert_array_equal(read(path, page=t * 4 + z), ordered[t, z])
    np.testing.assert_array_equal(read(path, t=1, page=2), ordered[1, 2])


@pytest.mark.parametrize("planar", [False, True])
def test_every_page_of_a_plain_file(tmp_path: Path, planar: bool) -> None:
    path = tmp_path / "a.tif"
    pages = [noise(20, 30, 3) for _ in range(3)]
    with tifffile.TiffWriter(path) as tiff:
        for page in pages:
            tiff.write(
                np.moveaxis(page, -1, 0) if planar else page,
                photometric="rgb",
                planarconfig="separate" if planar else "contig",
                metadata=None,
                contiguous=False,
                compression="zlib",
            )
    for number, page in enumerate(pages):
        np.testing.assert_array_equal(read(path, page=number), page)
    with pytest.raises(ImageError, match=r"I \(3\).*choose it with page=0 to 2$"):
        open_source(path)
    with pytest.raises(SettingError, match=r"page=3 is not in .*page=0 to 2$"):
        open_source(path, page=3)


def test_planes_have_different_identities(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(3, 20, 30), metadata={"axes": "ZYX"}, photometric="minisblack")
    identities = {open_source(path, z=z).facts.identity for z in range(3)}
    assert len(identities) == 3
    assert open_source(path, page=1).facts.identity in identities


def test_first_plane_of_a_single_image_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = noise(20, 30)
    tifffile.imwrite(path, pixels)
    np.testing.assert_array_equal(read(path, page=0, series=0, z=0, t=0)[..., 0], pixels)
    for name in ("page", "series", "z", "t"):
        with pytest.raises(SettingError, match=rf"{name}=1: .*; leave {name} out$"):
            open_source(path, **choice_of(name))


def test_axes_rename_the_pages_of_a_stack(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = noise(5, 20, 30)
    tifffile.imwrite(path, pixels, photometric="minisblack")
    with pytest.raises(ImageError, match=r"unnamed \(5\)"):
        open_source(path)
    np.testing.assert_array_equal(read(path, axes="CYX"), np.moveaxis(pixels, 0, -1))
    np.testing.assert_array_equal(read(path, axes="zyx", z=3)[..., 0], pixels[3])
    for axes in ("YXC", "YX", "XYC", "CCYX", "YYX"):
        with pytest.raises(
            SettingError,
            match=r"unnamed \(5\), Y \(20\), X \(30\).*; leave axes out, or .* axes='CYX'$",
        ):
            open_source(path, axes=axes)


def test_axes_for_a_file_without_other_axes_are_to_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(20, 30, 3), photometric="rgb")
    with pytest.raises(SettingError, match=r"axes='CYX' was given; leave axes out$"):
        open_source(path, axes="CYX")


def test_the_axes_that_are_suggested_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for shape, kind in (
        ((5, 20, 30), "minisblack"),
        ((4, 5, 20, 30), "minisblack"),
        ((5, 20, 30, 3), "rgb"),
    ):
        tifffile.imwrite(path, noise(*shape), photometric=kind)
        with pytest.raises(SettingError) as caught:
            open_source(path, axes="Q")
        suggested = str(caught.value).rsplit("'", 2)[1]
        open_source(path, axes=suggested, page=0).close()


def write_series(path: Path, *images: NDArray[Any], **options: Any) -> None:
    with tifffile.TiffWriter(path) as tiff:
        for image in images:
            tiff.write(image, photometric="minisblack", metadata=None, **options)


def test_first_image_is_opened_if_the_others_are_smaller(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    big, small = noise(40, 60), noise(20, 29)
    write_series(path, big, small)
    np.testing.assert_array_equal(read(path)[..., 0], big)
    np.testing.assert_array_equal(read(path, series=1)[..., 0], small)
    assert open_source(path).facts.identity != open_source(path, series=1).facts.identity


def test_several_images_are_refused_with_the_list_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    small, big = noise(20, 29), noise(40, 60)
    write_series(path, small, big)
    with pytest.raises(ImageError) as caught:
        open_source(path)
    assert str(caught.value) == (
        f"one image of a file is read at a time; {path} holds series 0: Y (20), X (29); "
        "series 1: Y (40), X (60); choose it with series=0 to 1"
    )
    np.testing.assert_array_equal(read(path, series=1)[..., 0], big)
    with pytest.raises(SettingError, match=r"series=2 .*series=0 to 1"):
        open_source(path, series=2)


def test_mask_of_the_image_is_no_rival(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = noise(40, 60)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, metadata=None)
        tiff.write(pixels > 99, metadata=None, subfiletype=4)
    np.testing.assert_array_equal(read(path)[..., 0], pixels)


def test_pixel_size_is_that_of_the_chosen_image(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for size in (0.5, 0.25):
            tiff.write(noise(20, 30), metadata={"PhysicalSizeX": size, "PhysicalSizeY": size})
    sizes = [open_source(path, series=n).facts.levels[0].pixel_size for n in (0, 1)]
    assert sizes == [(0.5, 0.5), (0.25, 0.25)]


def test_lower_levels_follow_the_chosen_plane(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    pixels = noise(3, 64, 96)
    options: dict[str, Any] = {"tile": (16, 16), "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(pixels, subifds=1, metadata={"axes": "ZYX"}, **options)
        tiff.write(pixels[:, ::2, ::2], subfiletype=1, **options)
    source = open_source(path, z=2)
    assert [level.shape for level in source.facts.levels] == [(64, 96), (32, 48)]
    np.testing.assert_array_equal(source.read(1, Box.of(0, 32, 0, 48))[..., 0], pixels[2, ::2, ::2])
    source.close()


def test_pages_of_several_planes_are_refused(tmp_path: Path) -> None:
    pixels = noise(5, 40, 60)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, volumetric=True, photometric="minisblack", tile=(16, 16))
    with pytest.raises(ImageError, match=r"a page must hold one plane; .*a\.tif has pages of 5"):
        open_source(path)
    tifffile.imwrite(path, pixels, photometric="minisblack", tile=(16, 16))
    open_source(path, page=0).close()


def test_image_whose_channels_lie_in_another_file_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"photometric": "minisblack", "tile": (16, 16), "ome": True}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, noise(2, 40, 60), metadata={"axes": "CYX"}, **options)
    open_source(path).close()
    tifffile.imwrite(tmp_path / "b.ome.tif", noise(1, 40, 60), metadata=None, photometric=1)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        identifier = "urn:uuid:22222222-2222-2222-2222-222222222222"
        here = '<UUID FileName="{}">' + identifier + "</UUID>"
        planes = "".join(
            f'<TiffData FirstC="{channel}" IFD="0" PlaneCount="1">{here.format(name)}</TiffData>'
            for channel, name in enumerate(("a.ome.tif", "b.ome.tif"))
        )
        xml = tiff.ome_metadata
        assert xml
        start, stop = xml.index("<TiffData"), xml.index("</Pixels>")
        tiff.pages[0].tags["ImageDescription"].overwrite(xml[:start] + planes + xml[stop:])
    with pytest.raises(ImageError, match=r"all channels must be in one file; .*a\.ome\.tif"):
        open_source(path)
