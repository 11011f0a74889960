"""Images of object stores and servers are those of files, of which parts are asked for."""

from contextlib import closing, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tile_infer import ImageError, OutputError, SettingError, TileInferError, predict_large
from tile_infer.engine import remote
from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.remote_file import RemoteFile
from tile_infer.engine.url import Url
from tile_infer.tiler.box import Box

from ...exactness.seeded_networks import export, seeded, textured
from ...object_server import Fault, ObjectServer

PIXELS = textured(900, 1200, channels=3)
BOX = Box.of(300, 700, 500, 1100)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TIFFs in tiles, strips and as one plain raster, a pyramid, and Zarr images."""
    folder = tmp_path_factory.mktemp("remote")
    rgb: dict[str, Any] = {"photometric": "rgb"}
    tifffile.imwrite(folder / "tiles.tif", PIXELS, tile=(64, 64), compression="zlib", **rgb)
    tifffile.imwrite(folder / "strips.tif", PIXELS, rowsperstrip=16, compression="zlib", **rgb)
    tifffile.imwrite(folder / "plain.tif", PIXELS, **rgb)
    tifffile.imwrite(folder / "slide.ome.tif", PIXELS, tile=(64, 64), **rgb)
    with tifffile.TiffWriter(folder / "a pyramid.tif", bigtiff=True) as writer:
        writer.write(PIXELS, tile=(64, 64), subifds=1, **rgb)
        writer.write(PIXELS[::2, ::2], tile=(64, 64), subfiletype=1, **rgb)
    for version in (2, 3):
        zarr.create_array(
            folder / f"v{version}.zarr",
            data=np.asarray(PIXELS, np.uint8),
            chunks=(256, 256, 3),
            zarr_format=version,
        )
    group = zarr.open_group(folder / "ome.zarr", mode="w", zarr_format=3)
    for level in (0, 1):
        group.create_array(
            str(level), data=np.asarray(PIXELS[:: 2**level, :: 2**level]), chunks=(256, 256, 3)
        )
    axes = [{"name": name} for name in "yxc"]
    datasets = [{"path": "0"}, {"path": "1"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    export(seeded(1, 1, channels=3), folder / "net.onnx", 3)
    return folder


NAMES = [
    "tiles.tif",
    "strips.tif",
    "plain.tif",
    "slide.ome.tif",
    "a pyramid.tif",
    "v2.zarr",
    "v3.zarr",
    "ome.zarr",
]


def upload(files: Path, server: ObjectServer, bucket: str, name: str) -> None:
    paths = files.joinpath(name).rglob("*") if files.joinpath(name).is_dir() else [files / name]
    for path in paths:
        if path.is_file():
            key = str(path.relative_to(files)).replace(" ", "%20")
            server.put(f"{bucket}/{key}", path.read_bytes())


def url_of(scheme: str, server: ObjectServer, bucket: str, name: str) -> str:
    if scheme == "s3":
        return f"s3://{bucket}/{name}"
    return f"{server.url}/{bucket}/{name.replace(' ', '%20')}"


@pytest.mark.parametrize(
    ("name", "scheme"),
    [*((name, "s3") for name in NAMES), ("a pyramid.tif", "http"), ("ome.zarr", "http")],
)
def test_pixels_and_identity_are_those_of_the_file(
    files: Path, object_server: ObjectServer, bucket: str, name: str, scheme: str
) -> None:
    upload(files, object_server, bucket, name)
    url = url_of(scheme, object_server, bucket, name)
    with closing(open_source(url)) as far, closing(open_source(files / name)) as near:
        assert far.facts.identity == near.facts.identity
        assert far.facts.levels == near.facts.levels
        assert np.array_equal(far.read(0, BOX), PIXELS[BOX.slices])
        level = len(far.facts.levels) - 1
        small = Box.of(10, 200, 20, 300)
        assert np.array_equal(far.read(level, small), near.read(level, small))


@pytest.mark.parametrize("name", ["tiles.tif", "v3.zarr"])
def test_only_what_is_needed_is_asked_for(
    files: Path, object_server: ObjectServer, bucket: str, name: str
) -> None:
    upload(files, object_server, bucket, name)
    with closing(open_source(f"s3://{bucket}/{name}")) as source:
        object_server.requests()
        source.read(0, Box.of(0, 60, 0, 60))
        asked = object_server.requests()
    assert len(asked) == 1
    assert 0 < asked[0].sent_bytes < (256 if name == "v3.zarr" else 64) ** 2 * 3 * 1.1


def test_of_a_pyramid_only_the_level_that_is_read_is_asked_for(
    files: Path, object_server: ObjectServer, bucket: str, tmp_path: Path
) -> None:
    upload(files, object_server, bucket, "a pyramid.tif")
    url, out = f"s3://{bucket}/a pyramid.tif", tmp_path / "mask.zarr"
    object_server.requests()
    predict_large(url, files / "net.onnx", out, level=1, tile=(188, 220), workers=1)
    asked = object_server.requests()
    whole = (files / "a pyramid.tif").stat().st_size
    assert sum(each.sent_bytes for each in asked) < 0.6 * whole


@pytest.mark.parametrize("name", ["tiles.tif", "plain.tif", "ome.zarr"])
def test_pixels_are_right_though_requests_fail_now_and_then(
    files: Path, object_server: ObjectServer, bucket: str, name: str
) -> None:
    upload(files, object_server, bucket, name)
    for scheme in ("s3", "http"):
        object_server.disturb(
            Fault("fail", "GET", every=4, times=10),
            Fault("cut", "GET", every=5, times=10),
            Fault("stall", "GET", every=40, times=1),
        )
        url = url_of(scheme, object_server, bucket, name)
        with closing(open_source(url)) as far, closing(open_source(files / name)) as near:
            assert far.facts.identity == near.facts.identity
            assert np.array_equal(far.read(0, BOX), PIXELS[BOX.slices])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tiles.tif", "fail"), ("v3.zarr", "stall")],
)
def test_a_server_that_stays_away_is_told_and_no_pixel_taken_for_damaged(
    files: Path,
    object_server: ObjectServer,
    bucket: str,
    soon: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    kind: Any,
) -> None:
    upload(files, object_server, bucket, name)
    url = f"s3://{bucket}/{name}"

    def disturb(_: Any) -> None:
        object_server.disturb(Fault(kind, "GET"))

    with pytest.raises(TileInferError, match="the same command continues") as caught:
        predict_large(
            url,
            files / "net.onnx",
            tmp_path / "mask.zarr",
            on_plan=disturb,
            on_read_error="fill",
            tile=(188, 220),
            workers=1,
        )
    assert "\n" not in str(caught.value)
    assert f"{bucket}/{name}" in str(caught.value)
    with pytest.raises(TileInferError, match="the same command continues"):
        open_source(url)
    object_server.disturb()
    soon.undo()
    again = predict_large(
        url, files / "net.onnx", tmp_path / "mask.zarr", tile=(188, 220), workers=1
    )
    near = predict_large(PIXELS, files / "net.onnx", tile=(188, 220), workers=1)
    assert np.array_equal(np.asarray(again), np.asarray(near))


def test_the_mask_of_an_object_goes_beside_it_and_that_of_a_servers_file_does_not(
    files: Path, object_server: ObjectServer, bucket: str
) -> None:
    upload(files, object_server, bucket, "slide.ome.tif")
    done = predict_large(f"s3://{bucket}/slide.ome.tif", files / "net.onnx")
    assert done.report["mask"] == f"s3://{bucket}/slide.net.zarr"
    with pytest.raises(SettingError, match=r"nothing can be written beside .*; give out=PATH"):
        predict_large(f"{object_server.url}/{bucket}/slide.ome.tif", files / "net.onnx")


def test_names_of_objects_are_taken_as_they_are(
    files: Path, object_server: ObjectServer, bucket: str
) -> None:
    object_server.put(f"{bucket}/a%2520b/50%2525.tif", (files / "tiles.tif").read_bytes())
    done = predict_large(f"s3://{bucket}/a%20b/50%25.tif", files / "net.onnx", tile=(188, 220))
    assert done.report["mask"] == f"s3://{bucket}/a%20b/50%25.net.zarr"
    keys = object_server.objects(bucket)
    assert {key.split("/")[0] for key in keys} == {"a%20b"}
    assert "a%20b/50%25.net.zarr/zarr.json" in keys


@pytest.mark.parametrize("path", ["x/../v3.zarr", "./v3.zarr", "x//v3.zarr", ".."])
def test_a_path_in_a_bucket_that_stands_for_another_is_refused(files: Path, path: str) -> None:
    with pytest.raises(SettingError, match=r"a part that is empty, \. or \.\.; give it without"):
        predict_large(f"s3://bucket/{path}", files / "net.onnx")


def test_a_mask_does_not_overwrite_its_image(
    files: Path, object_server: ObjectServer, bucket: str
) -> None:
    upload(files, object_server, bucket, "v3.zarr")
    url = f"s3://{bucket}/v3.zarr"
    for out in (url, f"{url}/", f"{url}/mask.zarr", f"s3://{bucket}"):
        with pytest.raises(OutputError, match="overlap"):
            predict_large(url, files / "net.onnx", out, overwrite=True)


def test_a_request_that_fails_is_told_whatever_a_library_makes_of_it(
    files: Path, object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "RETRIES", 0)
    upload(files, object_server, bucket, "tiles.tif")
    file = RemoteFile(Url.of(f"s3://{bucket}/tiles.tif"))
    object_server.disturb(Fault("fail"))
    with pytest.raises(TileInferError, match="does not answer"), file.view() as view:  # noqa: PT012
        with suppress(OSError):
            view.read(1)
        raise ValueError("damaged")


class _WholeFiles(SimpleHTTPRequestHandler):
    """A server that knows no ranges."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_of_a_server_without_ranges_a_zarr_is_read_and_a_tiff_refused(
    files: Path, bucket: str
) -> None:
    handler = partial(_WholeFiles, directory=files)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with closing(open_source(f"{url}/v2.zarr")) as source:
            assert np.array_equal(source.read(0, BOX), PIXELS[BOX.slices])
        with pytest.raises(TileInferError, match=r"sends no parts of .*tiles\.tif; download it"):
            open_source(f"{url}/tiles.tif")
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "why", "once"),
    [
        (400, r"the server refuses .*/x \(400 Bad Request\); check address and region", True),
        (301, r"the server refuses .*/x \(Received redirect.*region", True),
        (429, r"/x does not answer after 2 retries: .*429", False),
        (500, r"/x does not answer after 2 retries: .*500", False),
    ],
)
def test_an_answer_that_will_not_change_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, status: int, why: str, once: bool
) -> None:
    monkeypatch.setattr(remote, "RETRIES", 2)
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
    asked = list[str]()

    class Answer(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = Url.of(f"http://127.0.0.1:{server.server_port}")
        store = remote.open_remote(url)

        def ask() -> None:
            for attempt in remote.attempts():
                with attempt, remote.told(url, "x"):
                    store.get("x")

        with pytest.raises(remote.RequestError, match=why):
            ask()
        server.shutdown()
    assert (len(asked) == 1) is once


def test_what_cannot_be_read_is_told(files: Path, object_server: ObjectServer, bucket: str) -> None:
    object_server.put(f"{bucket}/notes.txt", b"no image")
    object_server.put(f"{bucket}/broken.tif", (files / "tiles.tif").read_bytes()[:600])
    object_server.put(f"{bucket}/empty.tif", b"")
    slide = BytesIO()
    xmp = [(700, 1, 8, b"<iScan/>", True)]
    tifffile.imwrite(slide, PIXELS, tile=(64, 64), software="ScanOutputManager 1.1", extratags=xmp)
    object_server.put(f"{bucket}/ventana.tif", slide.getvalue())
    for name, why in {
        "none.tif": "does not exist; check the URL",
        "notes.txt": "is no TIFF or Zarr, which are all that is read by URL",
        "broken.tif": "get a good copy",
        "empty.tif": "is empty; get a good copy",
        "ventana.tif": "tiles of Ventana's slides overlap.*; download it",
    }.items():
        for scheme in ("s3", "http"):
            with pytest.raises(ImageError, match=why):
                open_source(url_of(scheme, object_server, bucket, name))
    with pytest.raises(ImageError, match="is no image; name a TIFF or a Zarr inside it"):
        open_source(f"s3://{bucket}")
