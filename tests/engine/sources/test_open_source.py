import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tile_infer.engine.sources import Source, open_source
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError


def refused(image: Any, *words: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_source(image)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_what_is_no_image_is_refused_in_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("not an image\nat all")
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.tif").write_bytes(b"II*\0\x08\0\0\0")
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr" / "zarr.json").write_text("{")
    refused(tmp_path / "missing.tif", "missing.tif", "check the path")
    refused(str(tmp_path / "text.tif"), "text.tif", "convert it to TIFF")
    refused(tmp_path / "empty.tif", "empty.tif", "is empty")
    refused(tmp_path / "folder", "folder", "Zarr folder")
    refused(tmp_path / "cut.tif", "cut.tif", "get a good copy")
    refused(tmp_path / "broken.zarr", "broken.zarr", "get a good copy")
    refused(7, "int", "NumPy")


@pytest.mark.skipif(
    os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0),
    reason="permissions do not bind this user",
)
def test_file_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    (tmp_path / "a.tif").chmod(0)
    refused(tmp_path / "a.tif", "permission")


def test_tiff_is_told_by_its_content(tmp_path: Path) -> None:
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    tifffile.imwrite(tmp_path / "scan.tif", pixels)
    (tmp_path / "scan.tif").rename(tmp_path / "scan.dat")
    source: Source = open_source(tmp_path / "scan.dat")
    assert source.facts.name == "scan.dat"
    np.testing.assert_array_equal(source.read(0, Box.of(2, 4, 3, 9))[..., 0], pixels[2:4, 3:9])
    source.close()


def test_identity_of_a_file_ignores_path_and_time(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (900, 900), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    shutil.copyfile(tmp_path / "a.tif", tmp_path / "b.tif")
    os.utime(tmp_path / "b.tif", (1, 1))
    first, second = (open_source(tmp_path / name).facts.identity for name in ("a.tif", "b.tif"))
    assert first == second
    assert len(first) == 64
    content = bytearray((tmp_path / "b.tif").read_bytes())
    content[-5] ^= 1
    (tmp_path / "b.tif").write_bytes(content)
    assert open_source(tmp_path / "b.tif").facts.identity != first


def test_opening_needs_neither_dask_nor_torch() -> None:
    code = "import sys, tile_infer.engine.sources as s; print({'dask', 'torch'} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.strip() == "set()"


def test_broken_file_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0\x03\0" + b"\x7f" * 60)
    code = (
        "import sys\nfrom tile_infer.engine.sources import open_source\n"
        "try: open_source(sys.argv[1])\nexcept OSError: pass\n"
    )
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "a.tif")],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert (shown.stdout, shown.stderr) == ("", "")
