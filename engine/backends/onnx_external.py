"""Weights that an ONNX file keeps in other files: none but those beside it are read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from ...tiler.errors import ModelError


def load_external(model: onnx.ModelProto, path: Path) -> None:
    """Read the weights that lie beside a file into its graph, so that nothing else reads files.

    Raises:
        ModelError: They are missing, or lie outside of the file's folder, be it by ``..``, an
            absolute path or a link.
    """
    for tensor in _external(model):
        for location in [each.value for each in tensor.external_data if each.key == "location"]:
            _check(location, path)
    load_external_data_for_model(model, str(path.parent))
    left = next(_external(model), None)
    if left is not None:  # of a sparse tensor, say
        raise ModelError(
            f"model {path} keeps the tensor {left.name!r:.100} in another file, where only weights "
            "may be; save it with all tensors inside"
        )


def _check(location: str, path: Path) -> None:
    try:
        place = (path.parent / location).resolve()
        inside = place.is_relative_to(path.parent.resolve())
        there = inside and place.is_file()
    except (OSError, ValueError, RuntimeError):  # no path at all, or links that go round
        inside = there = False
    if not inside:
        raise ModelError(
            f"model {path} names the weights {location!r:.200}, which are not in its folder; only "
            "files beside it are read: copy them there, and save it with that name"
        )
    if not there:
        raise ModelError(
            f"model {path} keeps its weights in {location!r:.200}, which is missing; copy that "
            "file to the same folder"
        )


def _external(message: Any) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a graph that is kept elsewhere, wherever it is used."""
    if isinstance(message, onnx.TensorProto):
        if uses_external_data(message):
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "extend") else (value,):
                yield from _external(each)
