"""Zarr arrays and OME-Zarr groups, given as object, folder or ZIP file."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from ...tiler.box import Box
from ...tiler.errors import ImageError, first_line
from ..naming import readable
from ..remote import RequestError
from ..url import Location, Url
from ..url_store import UrlStore
from .attributes import nodata_of
from .axes import AxisOrder, guessed_axes, named_axes
from .base import ImageFacts, Level
from .choice import Choice
from .identity import content_identity, evenly
from .lengths import micrometers_per
from .pixel_type import native_dtype
from .request import checked_channels
from .zarr_files import root_in_zip

_SAMPLED_CHUNKS = 256
_AXES_BEFORE_0_3 = ("t", "c", "z", "y", "x")


class ZarrSource:
    """A Zarr array, or a multiscale image of an OME-Zarr group (0.1 to 0.5).

    Of a stack, lower levels that also merge planes are left out.
    """

    def __init__(
        self,
        node: Location | zarr.Array[Any] | zarr.Group,
        axes: str | None = None,
        choice: Choice | None = None,
    ) -> None:
        """Open a folder, a ZIP file or a URL, or wrap an array or group.

        Args:
            node: Folder, ZIP file, URL, array or group.
            axes: One letter per axis, such as ``CYX``; where ``None``, told from OME metadata,
                from the array's dimension names, or from its lengths.
            choice: The plane, of a stack; the multiscale image, of a group of several.

        Raises:
            ImageError: It is no Zarr, holds no image, or has other axes than y, x and channel.
            SettingError: What is chosen is not there, or the axes have no names to choose by.
        """
        choice = choice or Choice()
        self._owned = isinstance(node, Path | Url)
        self._where = str(node) if isinstance(node, Path | Url) else (node.basename or "array")
        opened = _opened(node) if isinstance(node, Path | Url) else node
        if isinstance(opened, zarr.Group):
            image = _multiscale(opened, self._where, choice)
            with _whole_metadata(self._where):
                paths = [str(dataset["path"]) for dataset in image["datasets"]]
                names: list[str] | None = _axis_names(image)
                scales = [_scale(image, dataset) for dataset in image["datasets"]]
                units: list[str] | None = _axis_units(image)
            self._arrays = [_array_at(opened, path, self._where) for path in paths]
        else:
            choice.image_of(1, self._where, "one image")
            image, names, units = {}, _dimension_names(opened), None
            self._arrays, scales = [opened], [None]
        order = self._order(self._arrays[0], axes or names, choice)
        self._arrays = _of_same_stack(self._arrays, order)
        scales = scales[: len(self._arrays)]
        self._orders = [self._order(array, axes or names, choice) for array in self._arrays]
        self._dtype = native_dtype(self._arrays[0].dtype, self._where)
        for array, other in zip(self._arrays, self._orders, strict=True):
            if array.dtype != self._arrays[0].dtype or other.channels != order.channels:
                raise ImageError(
                    f"all levels need one pixel type and channel count; {self._where} has "
                    f"{self._arrays[0].dtype} x {order.channels} and {array.dtype} x "
                    f"{other.channels}; pass the array of one level"
                )
        sizes = [_pixel_size(order, scale, units) for scale in scales]
        self._facts = ImageFacts(
            name=readable(Path(self._where).name),
            dtype=self._dtype.name,
            channels=order.channels,
            axes=order.axes,
            levels=tuple(
                Level(o.size, size, (o.length("Y", array.chunks), o.length("X", array.chunks)))
                for o, size, array in zip(self._orders, sizes, self._arrays, strict=True)
            ),
            identity=content_identity(
                {
                    "image": image,
                    "axes": order.letters,
                    "plane": order.picked,
                    "arrays": [array.metadata.to_dict() for array in self._arrays],
                },
                self._content(),
            ),
            unit=None if sizes[0] is None else "micrometer",
            nodata=nodata_of(self._arrays[0].attrs),
        )

    def _order(
        self, array: zarr.Array[Any], names: Sequence[str] | None, choice: Choice
    ) -> AxisOrder:
        if names is None:
            return guessed_axes(array.shape, self._where, choice)
        return named_axes(names, array.shape, self._where, choice)

    def _content(self) -> Iterable[bytes]:
        """Yield the pixels of chunks spread over level 0; all chunks, unless there are many."""
        array, order = self._arrays[0], self._orders[0]
        height, width = order.length("Y", array.chunks), order.length("X", array.chunks)
        rows, columns = -(-order.size[0] // height), -(-order.size[1] // width)
        for index in evenly(rows * columns, _SAMPLED_CHUNKS):
            y, x = index // columns * height, index % columns * width
            box = Box.of(y, min(y + height, order.size[0]), x, min(x + width, order.size[1]))
            try:
                yield self._region(0, box, slice(None)).tobytes()
            except ImageError as error:
                cause = error.__cause__
                if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno):
                    raise  # the system's failure may be gone the next time
                yield b"damaged"  # told to whoever reads it

    def _region(
        self, level: int, box: Box, channels: slice | tuple[int, ...]
    ) -> NDArray[np.generic]:
        array, order = self._arrays[level], self._orders[level]
        index = order.index(box, channels)
        try:
            # Orthogonal selection is the slower one, but decodes only the chunks of its channels.
            pixels = array[index] if isinstance(channels, slice) else array.oindex[index]
        except RequestError:  # tells nothing of the pixels
            raise
        except Exception as error:  # stores and codecs each raise their own
            why = first_line(error)
            raise ImageError(
                f"{self._where}: level {level}, pixels y {box.y.start}:{box.y.stop}, "
                f"x {box.x.start}:{box.x.stop} cannot be read: {why}; "
                "a chunk there is damaged, get a good copy"
            ) from error
        return order.to_yxc(np.asarray(pixels), self._dtype)

    @property
    def facts(self) -> ImageFacts:
        """Facts about the image."""
        return self._facts

    def read(
        self, level: int, box: Box, channels: tuple[int, ...] | None = None
    ) -> NDArray[np.generic]:
        """Return the pixels of ``box`` as ``(y, x, channel)``; see `Source.read`."""
        wanted = checked_channels(self._facts, level, box, channels)
        return self._region(level, box, slice(None) if channels is None else wanted)

    def close(self) -> None:
        """Release the folder or file; an array or group that was passed in stays open."""
        if self._owned:
            self._arrays[0].store.close()


def _opened(path: Location) -> zarr.Array[Any] | zarr.Group:
    try:
        if isinstance(path, Url):
            return zarr.open(UrlStore(path, read_only=True), mode="r")
        if path.is_file():
            return zarr.open(ZipStore(path, mode="r"), path=root_in_zip(path), mode="r")
        return zarr.open(str(path), mode="r")
    except RequestError:
        raise
    except Exception as error:  # zarr raises anything on broken metadata
        why = first_line(error)
        raise ImageError(
            f"{path} cannot be opened as Zarr: {why}; get a good copy or pass another folder"
        ) from error


def _of_same_stack(arrays: list[zarr.Array[Any]], order: AxisOrder) -> list[zarr.Array[Any]]:
    """Return the arrays up to the first whose stack axes have other lengths."""

    def lengths(array: zarr.Array[Any]) -> list[int]:
        if len(array.shape) != len(order.letters):
            return list(array.shape)
        return [n for n, a in zip(array.shape, order.letters, strict=True) if a not in "YXC"]

    return list(takewhile(lambda array: lengths(array) == lengths(arrays[0]), arrays))


def _multiscale(group: zarr.Group, where: str, choice: Choice) -> dict[str, Any]:
    """Return one of the group's images; their metadata is under ``ome`` since 0.5."""
    attributes = group.attrs.asdict()
    ome = attributes.get("ome", attributes)
    images = ome.get("multiscales") if isinstance(ome, dict) else None
    if images and isinstance(images, list):
        number = choice.image_of(len(images), where, f"{len(images)} multiscale image(s)") or 0
        with _whole_metadata(where):
            image = images[number]
            if image["datasets"] and all("path" in d for d in image["datasets"]):
                return dict(image)
    try:
        inside = ", ".join(sorted(group.keys())[:8]) or "nothing"
    except OSError:  # a server that lists nothing
        inside = "one of its arrays"
    raise ImageError(
        f"a Zarr group needs OME-Zarr multiscales to be an image; {where} has none; "
        f"pass what is inside it: {inside}"
    )


@contextmanager
def _whole_metadata(where: str) -> Iterator[None]:
    """Tell in one line that metadata is not of the form that OME-Zarr prescribes."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{where} has broken OME-Zarr metadata (multiscales); pass one of its arrays"
        ) from error


def _array_at(group: zarr.Group, path: str, where: str) -> zarr.Array[Any]:
    try:
        node = group.get(path)
    except ValueError:  # a path that leaves the group
        node = None
    if not isinstance(node, zarr.Array):
        raise ImageError(f"{where} lacks the array {path!r} that its metadata lists; get all of it")
    return node


def _axis_names(image: dict[str, Any]) -> list[str]:
    axes = image.get("axes", _AXES_BEFORE_0_3)
    return [str(axis["name"] if isinstance(axis, dict) else axis) for axis in axes]


def _axis_units(image: dict[str, Any]) -> list[str]:
    axes = image.get("axes", _AXES_BEFORE_0_3)
    return [str(axis.get("unit", "")) if isinstance(axis, dict) else "" for axis in axes]


def _scale(image: dict[str, Any], dataset: dict[str, Any]) -> list[float] | None:
    """Return the length of a pixel per axis: the level's scale times the image's."""
    scale: list[float] | None = None
    for holder in (dataset, image):
        for transformation in holder.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                factors = [float(f) for f in transformation.get("scale", ())]
                scale = (
                    factors
                    if scale is None
                    else [a * b for a, b in zip(scale, factors, strict=False)]
                )
    return scale


def _pixel_size(
    order: AxisOrder, scale: list[float] | None, units: list[str] | None
) -> tuple[float, float] | None:
    if scale is None or units is None or len(scale) != len(order.letters):
        return None
    sizes = []
    for letter in "YX":
        axis = order.letters.index(letter)
        unit = micrometers_per(units[axis])
        if unit is None or not 0 < scale[axis] < inf:
            return None
        sizes.append(scale[axis] * unit)
    return sizes[0], sizes[1]


def _dimension_names(array: zarr.Array[Any]) -> list[str] | None:
    """Return the names of all axes: Zarr 3's, or those xarray leaves in a Zarr 2 array."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) and n for n in names):
        return None
    return [str(n) for n in names]
