"""NumPy and Dask arrays as images, with or without xarray's names of axes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, first_line
from .attributes import nodata_of
from .axes import AxisOrder, guessed_axes, named_axes
from .base import ImageFacts, Level
from .choice import Choice
from .identity import content_identity, evenly
from .pixel_type import native_dtype
from .request import checked_channels

_HASHED_BYTES = 1 << 30
"""An array up to this size is told apart by every pixel; of a larger one, rows are sampled."""

_FEWEST_ROWS = 64


class ArraySource:
    """An array in memory, or one that Dask computes region by region.

    Dask computes every chunk that a region touches again for each region: chunks should not be
    much larger than a block.
    """

    def __init__(
        self,
        array: Any,
        axes: Sequence[str] | None = None,
        choice: Choice | None = None,
        nodata: float | None = None,
    ) -> None:
        """Wrap an array.

        Args:
            array: NumPy or Dask array, or anything NumPy takes for an array without copying.
            axes: One letter per axis, such as ``YXC``, or one name; told from the lengths where
                ``None``.
            choice: The plane, of a stack.
            nodata: Value of the pixels that hold no data.

        Raises:
            ImageError: The axes or the pixel type are not an image's.
            SettingError: The chosen plane is not there, or the axes have no names to choose by.
        """
        choice = choice or Choice()
        choice.image_of(1, "array", "one image")
        self._is_dask = is_dask(array)
        self._array: Any = array
        if not self._is_dask:
            self._array = _as_numpy(array)
        shape = tuple(self._array.shape)
        if any(math.isnan(length) for length in shape):
            raise ImageError(
                f"a Dask array needs known lengths; got shape {shape}; "
                "call its compute_chunk_sizes() first"
            )
        self._order: AxisOrder = (
            guessed_axes(shape, "array", choice)
            if axes is None
            else named_axes(axes, shape, "array", choice)
        )
        self._dtype = native_dtype(self._array.dtype, "array")
        segment = None
        if self._is_dask:
            chunk = array.chunksize
            segment = (self._order.length("Y", chunk), self._order.length("X", chunk))
        self._facts = ImageFacts(
            name="array",
            dtype=self._dtype.name,
            channels=self._order.channels,
            axes=self._order.axes,
            levels=(Level(self._order.size, segment=segment),),
            identity=content_identity(
                {
                    "shape": shape,
                    "dtype": self._array.dtype.str,
                    "axes": self._order.axes,
                    "plane": self._order.picked,
                    "nodata": nodata,
                },
                self._content(),
            ),
            nodata=nodata,
        )

    def _content(self) -> Iterable[bytes]:
        if self._is_dask:
            yield str(self._array.name).encode()
            return
        height, width = self._order.size
        row_bytes = width * self._order.channels * self._dtype.itemsize
        rows = evenly(height, max(_FEWEST_ROWS, _HASHED_BYTES // row_bytes))
        for y in rows:  # all of them, unless the array is huge
            yield self._region(Box.of(y, y + 1, 0, width), slice(None)).tobytes()

    def _region(self, box: Box, channels: slice | tuple[int, ...]) -> NDArray[np.generic]:
        region = self._array[self._order.index(box, channels)]
        if self._is_dask:
            region = region.compute(scheduler="synchronous")
        return self._order.to_yxc(region, self._dtype)

    @property
    def facts(self) -> ImageFacts:
        """Facts about the array."""
        return self._facts

    def read(
        self, level: int, box: Box, channels: tuple[int, ...] | None = None
    ) -> NDArray[np.generic]:
        """Return a copy of the pixels of ``box`` as ``(y, x, channel)``; see `Source.read`."""
        wanted = checked_channels(self._facts, level, box, channels)
        try:
            return self._region(box, slice(None) if channels is None else wanted)
        except Exception as error:  # a Dask graph raises anything
            if not self._is_dask:
                raise
            why = first_line(error)
            raise ImageError(
                f"array: pixels y {box.y.start}:{box.y.stop}, x {box.x.start}:{box.x.stop} cannot "
                f"be computed: {why}; mend the Dask graph or what it reads"
            ) from error

    def close(self) -> None:
        """Do nothing: the array is the caller's."""


def _as_numpy(array: Any) -> NDArray[Any]:
    try:
        return np.asarray(array)
    except (TypeError, ValueError) as error:  # an xarray.Dataset, a tensor on a GPU
        raise ImageError(
            f"a {type(array).__name__} cannot be taken for one array: {first_line(error)}; "
            "pass an array of numbers"
        ) from error


def is_dask(image: Any) -> bool:
    """Say whether an object is a Dask array, without importing Dask."""
    return type(image).__module__.partition(".")[0] == "dask" and hasattr(image, "chunksize")


def is_array(image: Any) -> bool:
    """Say whether an object is, or can be taken for, an array."""
    return is_dask(image) or hasattr(image, "__array__")


def is_named_array(image: Any) -> bool:
    """Say whether an object has the form of an ``xarray.DataArray``, without importing xarray."""
    dims = getattr(image, "dims", None)
    return isinstance(dims, tuple) and is_array(getattr(image, "data", None))


def named_array(image: Any, axes: str | None, choice: Choice) -> ArraySource:
    """Open an ``xarray.DataArray``: its dimensions name the axes unless ``axes`` does.

    Its attributes may state what holds no data, as rioxarray's do.

    Data that xarray would load lazily without Dask are loaded whole; open such a file with
    ``chunks={}``.
    """
    names = tuple(str(name) for name in image.dims)
    unnamed = all(name == f"dim_{i}" for i, name in enumerate(names))
    nodata = nodata_of(getattr(image, "attrs", {}))
    return ArraySource(image.data, axes or (None if unnamed else names), choice, nodata)
