from typing import Any

import dask.array
import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.array import ArraySource
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError, SettingError

BOX = Box.of(3, 17, 5, 29)
RNG = np.random.default_rng(0)


def noise(*shape: int) -> NDArray[np.uint16]:
    return RNG.integers(0, 65535, shape, np.uint16)


@pytest.mark.parametrize("chunks", [None, (7, 9, 2), -1, ((1, 12, 7), (20, 3, 7), (2, 1))])
def test_box_of_channels_last_array_in_memory_or_in_dask(chunks: Any) -> None:
    pixels = noise(20, 30, 3)
    source = ArraySource(pixels if chunks is None else dask.array.from_array(pixels, chunks))
    assert source.facts.axes == "YXC"
    np.testing.assert_array_equal(source.read(0, BOX), pixels[3:17, 5:29])
    np.testing.assert_array_equal(source.read(0, BOX, (2, 0)), pixels[3:17, 5:29][..., [2, 0]])


@pytest.mark.parametrize("chunks", [None, (1, 7, 9)])
def test_box_of_channels_first_array_comes_channels_last(chunks: Any) -> None:
    pixels = noise(3, 20, 30)
    source = ArraySource(pixels if chunks is None else dask.array.from_array(pixels, chunks))
    assert source.facts.axes == "CYX"
    expected = np.moveaxis(pixels[:, 3:17, 5:29], 0, -1)
    np.testing.assert_array_equal(source.read(0, BOX), expected)
    np.testing.assert_array_equal(source.read(0, BOX, (1,)), expected[..., [1]])


def test_axes_given_decide_where_lengths_do_not_tell() -> None:
    pixels = noise(20, 30, 12)
    with pytest.raises(ImageError, match="axes='YXC'"):
        ArraySource(pixels)
    assert ArraySource(pixels, "YXC").facts.channels == 12
    assert ArraySource(pixels, "CYX").facts.levels[0].shape == (30, 12)


def test_pixels_are_a_copy_in_native_byte_order() -> None:
    pixels = noise(20, 30).astype(">u2")
    got = ArraySource(pixels).read(0, BOX)
    assert got.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(got[..., 0], pixels[3:17, 5:29])
    got[...] = 0
    assert pixels[3:17, 5:29].any()


def test_booleans_stay_booleans() -> None:
    pixels = noise(20, 30) > 30_000
    source = ArraySource(pixels)
    got = source.read(0, BOX)
    assert source.facts.dtype == got.dtype.name == "bool"
    np.testing.assert_array_equal(got[..., 0], pixels[3:17, 5:29])


def test_only_the_chunks_that_a_box_touches_are_computed() -> None:
    computed: list[Any] = []

    def block(block_info: Any = None) -> NDArray[np.uint8]:
        computed.append(block_info[None]["chunk-location"])
        return np.full((10, 10), len(computed), np.uint8)

    array = dask.array.map_blocks(block, chunks=((10,) * 5, (10,) * 5), dtype=np.uint8)
    source = ArraySource(array)
    assert source.facts.levels[0].segment == (10, 10)
    computed.clear()
    source.read(0, Box.of(12, 18, 25, 35))
    assert sorted(computed) == [(1, 2), (1, 3)]


def test_failure_in_a_dask_graph_names_the_pixels() -> None:
    def fail() -> NDArray[np.uint8]:
        raise RuntimeError("lost\nfile")

    array = dask.array.from_delayed(dask.delayed(fail)(), (20, 30), np.uint8)
    with pytest.raises(ImageError, match=r"y 3:17, x 5:29 .* lost"):
        ArraySource(array).read(0, BOX)


def test_dask_array_of_unknown_length_is_refused_with_the_mend() -> None:
    array = dask.array.from_array(np.arange(900).reshape(30, 30))
    with pytest.raises(ImageError, match="compute_chunk_sizes"):
        ArraySource(array[array[:, 0] > 5])


@pytest.mark.parametrize("dtype", ["complex64", "U3", "datetime64[s]"])
def test_pixels_that_are_no_numbers_are_refused(dtype: str) -> None:
    with pytest.raises(ImageError, match="integers or real numbers"):
        ArraySource(np.zeros((20, 30), dtype))


def test_identity_follows_content_shape_and_type() -> None:
    pixels = noise(20, 30)
    same = ArraySource(pixels.copy()).facts.identity
    assert ArraySource(pixels).facts.identity == same
    changed = pixels.copy()
    changed[7, 9] += 1
    others = [changed, pixels.reshape(30, 20), pixels.view(np.int16)]
    assert same not in {ArraySource(other).facts.identity for other in others}


def test_identity_of_a_dask_array_is_that_of_its_graph() -> None:
    pixels = noise(20, 30)
    first, second = (ArraySource(dask.array.from_array(pixels, 10)) for _ in range(2))
    assert first.facts.identity == second.facts.identity
    assert ArraySource(dask.array.from_array(pixels + 1, 10)).facts.identity != first.facts.identity


def test_object_that_numpy_takes_for_an_array_is_read() -> None:
    class Wrapped:
        def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[np.uint16]:
            return pixels

    pixels = noise(20, 30)
    np.testing.assert_array_equal(ArraySource(Wrapped()).read(0, BOX)[..., 0], pixels[3:17, 5:29])


class Labelled:
    """Has what an ``xarray.DataArray`` has."""

    def __init__(self, data: Any, dims: tuple[str, ...], **attrs: Any) -> None:
        self.data = data
        self.dims = dims
        self.attrs = attrs

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        raise AssertionError("the data were loaded")


@pytest.mark.parametrize("chunks", [None, (1, 1, 7, 9)])
def test_dimensions_of_an_xarray_name_its_axes(chunks: Any) -> None:
    pixels = noise(2, 5, 20, 30)
    data = pixels if chunks is None else dask.array.from_array(pixels, chunks)
    array = Labelled(data, ("time", "band", "lat", "lon"))
    with pytest.raises(ImageError, match=r"time \(2\).*t=0 to 1"):
        open_source(array)
    source = open_source(array, t=1)
    assert (source.facts.axes, source.facts.channels) == ("CYX", 5)
    expected = np.moveaxis(pixels[1], 0, -1)[BOX.slices]
    np.testing.assert_array_equal(source.read(0, BOX), expected)
    np.testing.assert_array_equal(source.read(0, BOX, (4,)), expected[..., [4]])


def test_xarray_without_names_is_told_by_its_lengths_or_by_axes() -> None:
    pixels = noise(3, 20, 30)
    array = Labelled(pixels, ("dim_0", "dim_1", "dim_2"))
    assert open_source(array).facts.axes == "CYX"
    assert open_source(array, axes="ZYX", z=2).facts.channels == 1


def test_attributes_of_an_xarray_state_what_holds_no_data() -> None:
    pixels = noise(20, 30)
    plain, stated = (Labelled(pixels, ("y", "x"), **kw) for kw in ({}, {"_FillValue": -1.0}))
    assert open_source(plain).facts.nodata is None
    assert open_source(stated).facts.nodata == -1.0
    assert open_source(plain).facts.identity != open_source(stated).facts.identity


def test_plane_of_an_array_is_chosen_along_named_axes_only() -> None:
    pixels = noise(4, 20, 30)
    got = open_source(pixels, axes="ZYX", page=3).read(0, BOX)
    np.testing.assert_array_equal(got[..., 0], pixels[3][BOX.slices])
    with pytest.raises(SettingError, match="axes='ZYX'"):
        open_source(pixels, z=1)
    assert open_source(pixels, z=0).facts.channels == 4
    identities = {open_source(pixels, axes="ZYX", z=z).facts.identity for z in range(4)}
    assert len(identities) == 4


def test_one_changed_pixel_is_another_image() -> None:
    pixels = np.zeros((900, 70), np.uint8)
    before = ArraySource(pixels).facts.identity
    for y, x in ((0, 0), (451, 33), (899, 69)):
        changed = pixels.copy()
        changed[y, x] = 1
        assert ArraySource(changed).facts.identity != before


def test_what_refuses_to_be_an_array_is_refused_in_one_line() -> None:
    class Several:
        def __array__(self, *_: Any) -> NDArray[Any]:
            raise TypeError("several variables\nare no array")

    with pytest.raises(ImageError, match=r"a Several cannot .*: several variables; pass an array"):
        open_source(Several())
