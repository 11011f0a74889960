"""What the attributes of an array say of its pixels, in the words of xarray and rioxarray."""

import base64
import binascii
import struct
from collections.abc import Mapping
from math import isfinite
from typing import Any

_NODATA_NAMES = ("_FillValue", "missing_value", "nodata")


def nodata_of(attributes: Mapping[Any, Any]) -> float | None:
    """Return the value that stands for no data, ``None`` where none is stated.

    NaN is not returned: it is no data wherever it occurs. Zarr's own ``fill_value`` does not count:
    it is what chunks hold that were never written, most often 0.

    >>> nodata_of({"_FillValue": -9999}), nodata_of({"nodata": "nan"}), nodata_of({})
    (-9999.0, None, None)
    """
    for name in _NODATA_NAMES:
        if attributes.get(name) is not None:
            return _number(attributes[name])
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = _packed(value)
    return number if isfinite(number) else None


def _packed(value: Any) -> float:
    """Read a float as xarray packs it into the attributes of Zarr 3: base64 of eight bytes."""
    try:
        (number,) = struct.unpack("<d", base64.b64decode(value, validate=True))
    except (TypeError, ValueError, binascii.Error, struct.error):
        return float("nan")
    return float(number)
