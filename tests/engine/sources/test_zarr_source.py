import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc, Delta, Zlib
from numpy.typing import NDArray
from zarr.storage import _local

from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.zarr import ZarrSource
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError, SettingError

BOX = Box.of(3, 17, 5, 29)


def noise(*shape: int) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(1, 65535, shape, np.uint16)


def store(
    path: Path, pixels: NDArray[Any], chunks: tuple[int, ...], **options: Any
) -> zarr.Array[Any]:
    array = zarr.create_array(
        path, shape=pixels.shape, dtype=pixels.dtype, chunks=chunks, **options
    )
    array[...] = pixels
    return array


def zipped(folder: Path, path: Path, root: str) -> None:
    """Write a folder's files into a ZIP, below ``root``."""
    with zipfile.ZipFile(path, "w") as file:
        for part in sorted(p for p in folder.rglob("*") if p.is_file()):
            file.write(part, root + part.relative_to(folder).as_posix())


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("as_path", [True, False])
def test_plain_array_as_path_or_object(tmp_path: Path, zarr_format: Any, as_path: bool) -> None:
    pixels = noise(20, 30, 3)
    array = store(tmp_path / "a.zarr", pixels, (8, 9, 3), zarr_format=zarr_format)
    source = open_source(tmp_path / "a.zarr" if as_path else array)
    assert source.facts.axes == "YXC"
    assert source.facts.levels[0].segment == (8, 9)
    np.testing.assert_array_equal(source.read(0, BOX), pixels[3:17, 5:29])
    np.testing.assert_array_equal(source.read(0, BOX, (2, 0)), pixels[3:17, 5:29][..., [2, 0]])
    source.close()


def test_dimension_names_win_over_lengths(tmp_path: Path) -> None:
    pixels = noise(12, 20, 30)
    array = store(tmp_path / "a.zarr", pixels, (1, 8, 9), dimension_names=("band", "y", "x"))
    source = ZarrSource(array)
    assert (source.facts.axes, source.facts.channels) == ("CYX", 12)
    np.testing.assert_array_equal(source.read(0, BOX, (7,))[..., 0], pixels[7, 3:17, 5:29])


def test_names_that_xarray_leaves_in_zarr_2_are_used(tmp_path: Path) -> None:
    array = store(tmp_path / "a.zarr", noise(12, 20, 30), (1, 8, 9), zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["band", "y", "x"]
    assert ZarrSource(array).facts.axes == "CYX"


def test_only_chunks_of_the_channels_asked_for_are_read(tmp_path: Path) -> None:
    pixels = noise(3, 20, 30)
    store(tmp_path / "a.zarr", pixels, (1, 20, 30), dimension_names=("c", "y", "x"))
    source = ZarrSource(tmp_path / "a.zarr")
    for file in (tmp_path / "a.zarr" / "c" / "1").rglob("*"):
        if file.is_file():
            file.write_bytes(b"broken")
    got = source.read(0, BOX, (2, 0))
    np.testing.assert_array_equal(got, np.moveaxis(pixels[[2, 0], 3:17, 5:29], 0, -1))
    with pytest.raises(ImageError, match=r"a\.zarr: level 0, pixels y 3:17, x 5:29"):
        source.read(0, BOX)


def write_ome(
    path: Path, version: str, unit: str | None = "nanometer", **extra: Any
) -> list[NDArray[Any]]:
    full = noise(1, 2, 1, 40, 60)
    levels = [full, full[..., ::2, ::2]]
    group = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for number, pixels in enumerate(levels):
        array = group.create_array(
            str(number), shape=pixels.shape, dtype=pixels.dtype, chunks=(1, 1, 1, 16, 16)
        )
        array[...] = pixels
        scale = [1.0, 1.0, 1.0, 250.0 * 2**number, 500.0 * 2**number]
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    space = {"type": "space"} | ({} if unit is None else {"unit": unit})
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, **space} for name in "zyx"]
    image = {"axes": axes, "datasets": datasets, "version": version, **extra}
    if version == "0.5":
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [image]
    return [np.moveaxis(level[0, :, 0], 0, -1) for level in levels]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_group_gives_levels_axes_and_pixel_sizes(tmp_path: Path, version: str) -> None:
    levels = write_ome(tmp_path / "a.zarr", version)
    source = open_source(str(tmp_path / "a.zarr"))
    assert source.facts.name == "a.zarr"
    assert source.facts.axes == "CYX"
    assert source.facts.unit == "micrometer"
    assert [level.pixel_size for level in source.facts.levels] == [(0.25, 0.5), (0.5, 1.0)]
    for number, pixels in enumerate(levels):
        height, width = source.facts.levels[number].shape
        np.testing.assert_array_equal(source.read(number, Box.of(0, height, 0, width)), pixels)
    source.close()


def test_scale_of_the_whole_image_multiplies_that_of_its_levels(tmp_path: Path) -> None:
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0, 2.0, 4.0]}
    write_ome(tmp_path / "a.zarr", "0.4", coordinateTransformations=[scale])
    source = open_source(tmp_path / "a.zarr")
    assert source.facts.levels[0].pixel_size == (0.5, 2.0)


def test_scale_without_unit_is_no_pixel_size(tmp_path: Path) -> None:
    write_ome(tmp_path / "a.zarr", "0.5", unit=None)
    facts = open_source(tmp_path / "a.zarr").facts
    assert (facts.unit, facts.levels[0].pixel_size) == (None, None)


def test_group_without_multiscales_names_what_is_inside(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("cells", shape=(20, 30), dtype="uint8")
    with pytest.raises(ImageError, match="cells"):
        ZarrSource(group)


def test_multiscales_that_list_a_missing_array_are_refused(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.attrs["ome"] = {"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]}
    with pytest.raises(ImageError, match="lacks the array '0'"):
        ZarrSource(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    "broken",
    [
        {"axes": [{}, {}]},
        {"axes": None},
        {"coordinateTransformations": None},
        {"datasets": {"path": "0"}},
        {"datasets": [{"path": "0", "coordinateTransformations": ["scale"]}]},
        {"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": 3}]}]},
        {"datasets": [{"path": "../a.zarr/0"}]},
    ],
)
def test_broken_multiscales_are_refused_in_one_line(tmp_path: Path, broken: dict[str, Any]) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=noise(20, 30))
    group.attrs["ome"] = {
        "multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}], **broken}]
    }
    with pytest.raises(ImageError, match=r"broken OME-Zarr metadata|lacks the array"):
        open_source(tmp_path / "a.zarr")


def test_scale_that_is_no_number_is_no_pixel_size(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=noise(20, 30))
    scale = {"type": "scale", "scale": ["nan", "nan"]}
    group.attrs["ome"] = {
        "multiscales": [
            {
                "axes": [{"name": name, "unit": "micrometer"} for name in "yx"],
                "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
            }
        ]
    }
    assert open_source(tmp_path / "a.zarr").facts.levels[0].pixel_size is None


def test_long_axis_other_than_channel_is_refused_by_name(tmp_path: Path) -> None:
    array = store(
        tmp_path / "a.zarr", noise(5, 20, 30), (1, 20, 30), dimension_names=("z", "y", "x")
    )
    with pytest.raises(ImageError, match=r"z \(5\), y \(20\), x \(30\)"):
        ZarrSource(array)


def test_identity_ignores_the_path_and_sees_content_and_metadata(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    first = store(tmp_path / "a.zarr", pixels, (8, 9))
    copy = store(tmp_path / "b.zarr", pixels, (8, 9))
    other_content = store(tmp_path / "c.zarr", pixels + 1, (8, 9))
    other_chunks = store(tmp_path / "d.zarr", pixels, (9, 9))
    identity = ZarrSource(first).facts.identity
    assert ZarrSource(copy).facts.identity == identity
    assert ZarrSource(tmp_path / "b.zarr").facts.identity == identity
    assert ZarrSource(other_content).facts.identity != identity
    assert ZarrSource(other_chunks).facts.identity != identity


def test_plane_of_an_ome_stack_is_chosen_by_z_t_or_page(tmp_path: Path) -> None:
    pixels = noise(2, 3, 4, 20, 30)
    group = zarr.create_group(tmp_path / "a.zarr")
    datasets: list[Any] = []
    for number, level in enumerate([pixels, pixels[..., ::2, ::2], pixels[:, :, ::2, ::4, ::4]]):
        array = group.create_array(str(number), shape=level.shape, dtype=level.dtype)
        array[...] = level
        datasets.append({"path": str(number)})
    image: Any = {"axes": list("tczyx"), "datasets": datasets}
    group.attrs["ome"] = {"multiscales": [image]}
    with pytest.raises(ImageError, match="choose it with t=0 to 1 and z=0 to 3, or page=0 to 7"):
        open_source(tmp_path / "a.zarr")
    source = open_source(tmp_path / "a.zarr", t=1, z=2)
    # The third level merges planes: there is none of its own for each.
    assert [level.shape for level in source.facts.levels] == [(20, 30), (10, 15)]
    expected = np.moveaxis(pixels[1, :, 2], 0, -1)
    np.testing.assert_array_equal(source.read(0, BOX), expected[BOX.slices])
    np.testing.assert_array_equal(source.read(1, Box.of(0, 10, 0, 15)), expected[::2, ::2])
    np.testing.assert_array_equal(source.read(0, BOX, (2, 0)), expected[BOX.slices][..., [2, 0]])
    by_page = open_source(tmp_path / "a.zarr", page=6)
    np.testing.assert_array_equal(by_page.read(0, BOX), expected[BOX.slices])
    assert by_page.facts.identity == source.facts.identity
    assert open_source(tmp_path / "a.zarr", page=5).facts.identity != source.facts.identity


def test_image_of_a_group_of_several_is_chosen_by_series(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    images: list[Any] = []
    for number in range(2):
        array = group.create_array(str(number), shape=(20, 30), dtype="uint16")
        array[...] = number + 1
        images.append({"axes": ["y", "x"], "datasets": [{"path": str(number)}]})
    group.attrs["ome"] = {"multiscales": images}
    values = [open_source(group, series=n).read(0, BOX).max() for n in (0, 1)]
    assert values == [1, 2]
    with pytest.raises(SettingError, match=r"series=2 .*series=0 to 1"):
        open_source(group, series=2)


def test_one_changed_pixel_of_a_stored_array_is_another_image(tmp_path: Path) -> None:
    identities = set()
    for number, at in enumerate([None, (0, 0), (45, 33), (89, 69)]):
        pixels = np.zeros((90, 70), np.uint8)
        if at:
            pixels[at] = 1
        store(tmp_path / f"{number}.zarr", pixels, (16, 16))
        identities.add(ZarrSource(tmp_path / f"{number}.zarr").facts.identity)
    assert len(identities) == 4


@pytest.mark.parametrize("root", ["", "a.zarr/"])
@pytest.mark.parametrize("name", ["a.ozx", "a.zarr.zip"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_zipped_group_equals_the_folder(tmp_path: Path, version: str, name: str, root: str) -> None:
    levels = write_ome(tmp_path / "a.zarr", version)
    zipped(tmp_path / "a.zarr", tmp_path / name, root)
    with closing(open_source(tmp_path / name)) as source:
        assert source.facts.name == name
        assert source.facts.levels == open_source(tmp_path / "a.zarr").facts.levels
        boxes = [Box.of(y, y + 9, x, x + 9) for y in range(0, 31, 3) for x in range(0, 50, 5)]
        with ThreadPoolExecutor(4) as pool:
            for box, got in zip(boxes, pool.map(partial(source.read, 0), boxes), strict=True):
                np.testing.assert_array_equal(got, levels[0][box.slices])


def test_zip_that_is_broken_or_holds_no_zarr_is_refused(tmp_path: Path) -> None:
    write_ome(tmp_path / "a.zarr", "0.5")
    zipped(tmp_path / "a.zarr", tmp_path / "a.ozx", "")
    data = (tmp_path / "a.ozx").read_bytes()
    (tmp_path / "cut.ozx").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(ImageError, match=r"cut\.ozx cannot be opened as Zarr: .*good copy"):
        open_source(tmp_path / "cut.ozx")
    zipped(tmp_path / "a.zarr", tmp_path / "deep.zip", "two/folders/")
    with pytest.raises(ImageError, match=r"deep\.zip is a ZIP file, which is not read"):
        open_source(tmp_path / "deep.zip")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_failure_of_the_system_is_no_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Else a mask would be of an image that is another one the next time."""
    store(tmp_path / "a.zarr", noise(20, 30), (8, 9))
    identity = ZarrSource(tmp_path / "a.zarr").facts.identity
    read = _local._get

    def fails(path: Path, *rest: Any) -> Any:
        if path.parts[-3:] == ("c", "1", "2"):
            raise error
        return read(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(_local, "_get", fails)
        with pytest.raises(ImageError, match=r"a\.zarr: level 0, .* cannot be read"):
            ZarrSource(tmp_path / "a.zarr")
    chunk = tmp_path / "a.zarr/c/1/2"
    chunk.write_bytes(chunk.read_bytes()[:20])
    assert ZarrSource(tmp_path / "a.zarr").facts.identity != identity, "damage is told when read"


def test_damaged_chunk_in_a_zip_names_the_pixels(tmp_path: Path) -> None:
    pixels = noise(20, 30)
    store(tmp_path / "a.zarr", pixels, (20, 30), compressors=None)
    zipped(tmp_path / "a.zarr", tmp_path / "a.zip", "")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(pixels.tobytes())
    data[at + 5] ^= 1
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.zip( cannot be opened|: level 0, pixels)"):
        open_source(tmp_path / "a.zip").read(0, BOX)


@pytest.mark.parametrize(
    "attributes",
    [{"n5": "4.0.0"}, {"dimensions": [9, 9], "dataType": "uint8", "blockSize": [3, 3]}],
)
def test_n5_is_refused_by_name(tmp_path: Path, attributes: dict[str, Any]) -> None:
    (tmp_path / "attributes.json").write_text(json.dumps(attributes))
    with pytest.raises(ImageError, match="is N5, which is not read; convert it to Zarr"):
        open_source(tmp_path)
    (tmp_path / "attributes.json").write_text(json.dumps({"title": "nothing of the kind"}))
    with pytest.raises(ImageError, match="folder without Zarr metadata or DICOM"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"zarr_format": 2, "order": "F", "compressors": Blosc(cname="lz4")},
        {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"zarr_format": 2, "filters": [Delta(dtype=">u2")], "compressors": Zlib()},
        {"zarr_format": 3, "shards": (16, 27, 3)},
    ],
    ids=["order F and Blosc", "nested", "filter and Zlib", "shards"],
)
def test_pixels_do_not_depend_on_how_they_are_stored(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    pixels = noise(20, 30, 3).astype(">u2")
    store(tmp_path / "a.zarr", pixels, (8, 9, 3), **options)
    with closing(open_source(tmp_path / "a.zarr")) as source:
        assert source.facts.dtype == "uint16"
        got = source.read(0, BOX)
        assert got.dtype.isnative
        np.testing.assert_array_equal(got, pixels[3:17, 5:29])


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({"_FillValue": -9999}, -9999.0),
        ({"_FillValue": "AAAAAICHw8A="}, -9999.0),  # as xarray packs floats
        ({"missing_value": 7.5}, 7.5),
        ({"nodata": 0}, 0.0),
        ({"_FillValue": "NaN"}, None),  # is no data wherever it occurs
        ({"nodata": "none"}, None),
        ({"nodata": [1, 2]}, None),
        ({}, None),
    ],
)
def test_attributes_state_what_holds_no_data(
    tmp_path: Path, attributes: dict[str, Any], value: float | None
) -> None:
    array = store(tmp_path / "a.zarr", noise(20, 30), (8, 9), fill_value=5)
    array.attrs.update(attributes)
    assert ZarrSource(array).facts.nodata == value
    assert open_source(tmp_path / "a.zarr").facts.nodata == value
