"""A Zarr image is data: none of the codecs that it may name runs code."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tile_infer.engine.sources import open_source
from tile_infer.tiler.box import Box, Interval
from tile_infer.tiler.errors import ImageError


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("dtype", ["|u1", "|O"])
@pytest.mark.parametrize(
    "codecs",
    [
        {"filters": [{"id": "pickle"}]},
        {"filters": [{"id": "pickle"}, {"id": "shuffle"}]},
        {"compressor": {"id": "pickle"}},
    ],
    ids=["filter", "filters", "compressor"],
)
def test_no_pickle_is_unpacked(tmp_path: Path, codecs: dict[str, Any], dtype: str) -> None:
    trace, folder = tmp_path / "trace", tmp_path / "image.zarr"
    folder.mkdir()
    array = {
        **{"zarr_format": 2, "shape": [64, 64], "chunks": [64, 64], "dtype": dtype, "order": "C"},
        **{"fill_value": 0, "compressor": None, "filters": None},
        **codecs,
    }
    (folder / ".zarray").write_text(json.dumps(array))
    (folder / "0.0").write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(ImageError) as caught:
        open_source(folder).read(0, Box(Interval(0, 64), Interval(0, 64)), (0,))
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    pickle.loads((folder / "0.0").read_bytes())
    assert trace.exists(), "unpacking it would leave a trace"
