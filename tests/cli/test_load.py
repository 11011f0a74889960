"""Many images in one command: a hundred, five of them broken in five ways."""

import json
import pkgutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from ..exactness.run_plan import tree
from .conftest import Run

IMAGES = 100
SIDES_PX = (1, 90)

Pixels = NDArray[Any]
Writer = Callable[[Path, Pixels], Pixels]
"""Writes pixels and returns them as they are read again: some formats lose a little."""


def tiff(**options: Any) -> Writer:
    def write(path: Path, pixels: Pixels) -> Pixels:
        tifffile.imwrite(path, pixels, metadata=None, photometric="minisblack", **options)
        return np.asarray(tifffile.imread(path))

    return write


def coded(encode: Callable[[Any], bytes | bytearray], decode: Callable[[bytes], Any]) -> Writer:
    def write(path: Path, pixels: Pixels) -> Pixels:
        path.write_bytes(encode(pixels))
        return np.asarray(decode(path.read_bytes())).reshape(pixels.shape)

    return write


def zarr_array(zarr_format: Any) -> Writer:
    def write(path: Path, pixels: Pixels) -> Pixels:
        store = ZipStore(path, mode="w") if path.suffix == ".zip" else path
        array = zarr.create_array(
            store, shape=pixels.shape, dtype=pixels.dtype, chunks=(32, 48), zarr_format=zarr_format
        )
        array[...] = pixels
        array.store.close()
        return np.asarray(pixels)

    return write


KINDS: dict[str, tuple[str, str, Writer]] = {
    "strips": (".tif", "u1", tiff(rowsperstrip=7)),
    "tiles": (".tif", "u1", tiff(tile=(16, 32), compression="zlib")),
    "tiles of 16 bits": (".tif", "u2", tiff(tile=(32, 16), compression="lzw", bigtiff=True)),
    "JPEG in tiles": (".tiff", "u1", tiff(tile=(32, 32), compression="jpeg")),
    "PNG": (".png", "u1", coded(imagecodecs.png_encode, imagecodecs.png_decode)),
    "PNG of 16 bits": (".png", "u2", coded(imagecodecs.png_encode, imagecodecs.png_decode)),
    "JPEG": (".jpg", "u1", coded(imagecodecs.jpeg_encode, imagecodecs.jpeg_decode)),
    "JPEG 2000": (".jp2", "u1", coded(imagecodecs.jpeg2k_encode, imagecodecs.jpeg2k_decode)),
    "Zarr 3": (".zarr", "u1", zarr_array(3)),
    "Zarr 2": (".zarr", "u2", zarr_array(2)),
    "zipped Zarr": (".zip", "u1", zarr_array(3)),
}


def cut_short(path: Path) -> None:
    whole = tiff(tile=(16, 32))(path, noise((90, 90), "u1"))
    path.write_bytes(path.read_bytes()[: whole.size // 2])


def text(path: Path) -> None:
    path.write_text("a note on where the slide is")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def absurd(path: Path) -> None:
    tiff()(path, noise((40, 60), "u1"))
    with tifffile.TiffFile(path, mode="r+") as file:
        for code in (256, 257):
            file.pages.first.tags[code].overwrite(4_000_000_000, dtype="I")


def damaged_tile(path: Path) -> None:
    tiff(tile=(16, 32), compression="zlib")(path, noise((90, 90), "u1"))
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        first, count = page.dataoffsets[7], page.databytecounts[7]
    data = bytearray(path.read_bytes())
    data[first : first + count] = b"\x5a" * count
    path.write_bytes(data)


BROKEN: dict[int, tuple[str, Callable[[Path], None], str]] = {
    3: ("cut.tif", cut_short, "pixels y 32:48"),
    27: ("text.tif", text, "is not an image of a known kind"),
    50: ("empty.png", empty, "is empty"),
    74: ("absurd.tif", absurd, "4000000000"),
    99: ("damaged.tif", damaged_tile, "pixels y 32:48"),
}
"""Which of the images, its name, what is wrong, and a part of what is to be said."""


def noise(shape: tuple[int, int], dtype: str) -> Pixels:
    kind = np.dtype(dtype)
    rng = np.random.default_rng(shape)
    return rng.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


@pytest.fixture
def images(tmp_path: Path) -> dict[Path, Pixels | None]:
    """A hundred images in an order of their own, with the labels of those that are sound."""
    rng, found = np.random.default_rng(0), dict[Path, Pixels | None]()
    (tmp_path / "images").mkdir()
    for number in range(IMAGES):
        if number in BROKEN:
            name, write, _ = BROKEN[number]
            write(tmp_path / "images" / name)
            found[Path("images", name)] = None
            continue
        suffix, dtype, writer = list(KINDS.values())[number % len(KINDS)]
        height, width = rng.integers(*SIDES_PX, 2, endpoint=True).tolist()
        name = f"{number:02}{suffix}"
        pixels = writer(tmp_path / "images" / name, noise((height, width), dtype))
        found[Path("images", name)] = pixels > np.iinfo(pixels.dtype).max // 2
    return found


def mask_of(image: Path) -> Path:
    return Path("masks", f"{image.stem}.bright.zarr")


def held() -> tuple[int, int]:
    """Return the files that this process has open, and its threads."""
    files = sum(1 for _ in Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else 0
    return files, threading.active_count()


def test_all_sound_images_of_a_hundred_are_done_and_the_broken_ones_named(
    run: Run, images: dict[Path, Pixels | None], bright: Path
) -> None:
    command = (*images, "--model", bright, "--out", "masks", "--report", ".json", "--quiet")
    sound = {image: labels for image, labels in images.items() if labels is not None}
    broken = [image for image, labels in images.items() if labels is None]
    assert run(next(iter(sound)), "--model", bright, "--out", "first.zarr").code == 0  # libraries
    before = held()
    done = run(*command)
    assert all(now < then + 10 for now, then in zip(held(), before, strict=True))
    assert done.code == 1
    *told, last = done.err.splitlines()
    for line, image, (*_, cause) in zip(told, broken, BROKEN.values(), strict=True):
        assert line.startswith(f"error: {image}")
        assert cause in line
    assert last == f"error: 5 of 100 images failed: {', '.join(map(str, broken))}"
    for image, labels in sound.items():
        found = zarr.open_array(f"{mask_of(image)}/0", mode="r")
        np.testing.assert_array_equal(found[:], labels, strict=False)
        assert 0 < np.mean(labels) < 1 or labels.size < 50
    assert {path.name for path in Path("masks").iterdir()} == {
        name for image in sound for name in (mask_of(image).name, f"{image.stem}.bright.json")
    }

    for image in list(sound)[: len(KINDS)]:  # one of each kind, alone
        assert run(image, "--model", bright, "--out", "alone.zarr", "--overwrite").code == 0
        assert tree(Path("alone.zarr")) == tree(mask_of(image))

    times = {path: path.stat().st_mtime_ns for path in Path("masks").rglob("c/**/*")}
    mended = broken[-1]
    tiff()(mended, noise((40, 60), "u1"))
    again = run(*command)
    assert again.code == 1
    assert again.err.splitlines() == [
        *told[:-1],
        f"error: 4 of 100 images failed: {', '.join(map(str, broken[:-1]))}",
    ]
    for image in (*sound, mended):
        report = json.loads(mask_of(image).with_suffix(".json").read_text())
        assert report["blocks_run"] == (image == mended)
    assert times.items() <= {p: p.stat().st_mtime_ns for p in Path("masks").rglob("c/**/*")}.items()


@pytest.mark.parametrize("kind", ["ONNX", "torch.export"])
def test_a_network_is_opened_once_for_all_images_and_closed(
    run: Run, bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    model, module = bright, "onnx.OnnxNetwork"
    if kind == "torch.export":
        torch = pytest.importorskip("torch")
        model, module = tmp_path / "bright.pt2", "torch.TorchNetwork"
        program = torch.export.export(torch.nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 64, 64),))
        torch.export.save(program, model)
    images = [Path(f"{number}.tif") for number in range(3)]
    for number, image in enumerate(images):
        tiff()(image, noise((40 + number, 60), "u1"))
    options = ("--model", model, "--trust-model")
    calls: list[str] = []
    family: Any = pkgutil.resolve_name(f"tile_infer.engine.backends.{module}")
    for name in ("__init__", "close"):
        monkeypatch.setattr(family, name, counted(getattr(family, name), calls))
    assert run(*images, *options, "--out", "masks").code == 0
    assert calls == ["__init__", "close"]
    for image in images:
        assert run(image, *options, "--out", f"alone/{image.stem}.zarr").code == 0
        assert tree(Path(f"alone/{image.stem}.zarr")) == tree(mask_of(image))
    assert calls == 4 * ["__init__", "close"]


def counted(method: Callable[..., None], calls: list[str]) -> Callable[..., None]:
    def call(*given: Any, **named: Any) -> None:
        calls.append(method.__name__)
        method(*given, **named)

    return call
