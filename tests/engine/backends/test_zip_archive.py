"""Packages of strangers: names that lead out, and files that unpack to far more than they are."""

import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tile_infer.engine.backends import open_network, zip_archive
from tile_infer.engine.backends.bioimageio_package import LARGEST_PARTS
from tile_infer.tiler.errors import ModelError

from .zoo_models import pack, write_folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A good package."""
    write_folder(tmp_path / "zoo")
    return pack(tmp_path / "zoo", tmp_path / "package.zip")


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        open_network(path)
    assert "\n" not in str(caught.value)


def added(package: Path, name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(package, "a", method) as archive:
        archive.writestr(zipfile.ZipInfo(name), content, method)


@pytest.mark.parametrize(
    "name", ["../out.txt", "zoo/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:\\out.txt"]
)
def test_names_that_lead_out_are_refused(package: Path, name: str) -> None:
    open_network(package)
    before = {*package.parent.rglob("*")}
    added(package, name, b"hostile")
    refused(package, "which leads out of the package; get it from a place that you trust")
    assert {*package.parent.rglob("*")} == before


def test_a_name_with_dots_in_it_is_none_of_them(package: Path) -> None:
    added(package, "notes..txt", b"")
    added(package, "..notes/a", b"")
    open_network(package)


def test_weights_that_unpack_to_far_more_than_they_are_packed_in_are_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "zoo"
    with (folder / "weights.onnx").open("r+b") as file:
        file.seek(0, 2)
        file.write(bytes(1_000_000))
    write_folder(folder)
    bomb = pack(folder, tmp_path / "bomb.zip")
    monkeypatch.setattr(zip_archive, "SMALL_BYTES", 100_000)
    refused(bomb, r"holds 97\d\.\d kB in \d\.\d kB, which no weights are")
    open_network(package)


def test_what_a_package_says_of_its_own_size_does_not_matter(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zip_archive, "SMALL_BYTES", 0)
    monkeypatch.setattr(zip_archive, "LARGEST_RATIO", 3)
    open_network(package)
    with zipfile.ZipFile(package) as archive:
        info = archive.getinfo("weights.onnx")
        info.file_size, info.compress_size = 1 << 40, 1 << 40
        with pytest.raises(ModelError, match=r"holds 1\.0 TB in \d\.\d kB"):
            zip_archive.unpack(archive, "weights.onnx", tmp_path / "out", package)
    assert not (tmp_path / "out").exists()


def test_weights_that_the_disk_does_not_hold_are_refused_with_both_numbers(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    refused(package, r"unpacks to \d+ B|unpacks to \d\.\d kB, and .* has 100 B free; make room")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_whose_blocks_may_be_of_any_size_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("rdf.yaml", "type: model")
    refused(path, "is packed by another method than Deflate")


@pytest.mark.parametrize("packed", [True, False])
def test_a_description_that_is_no_text_for_people_is_refused(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "zoo"
    path = write_folder(folder)
    path.write_text(path.read_text() + " " * (1 << 20))
    refused(pack(folder, tmp_path / "large.zip") if packed else path, r"above 1\.0 MB|larger than")


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
        "a: &a [*a, *a]\n",
    ],
    ids=["a billion laughs", "itself"],
)
def test_a_description_that_unfolds_without_end_is_refused(tmp_path: Path, text: str) -> None:
    path = write_folder(tmp_path / "zoo")
    said: Any = path.read_text()
    path.write_text(f"{said.rstrip().removesuffix('}')}, config: {{}}}}\n")
    open_network(path)  # what was there is still good
    path.write_text(f"type: model\nformat_version: 0.5.4\n{text}")
    refused(path, f"unfolds to more than {LARGEST_PARTS} parts")
