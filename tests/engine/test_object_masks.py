"""Masks in an object store: the bytes of a folder, continued, locked, whatever requests do."""

import os
import socket
import sys
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tifffile
import zarr
from zarr.core.sync import sync

from tile_infer import (
    ImageError,
    ModelError,
    OutputError,
    Progress,
    SettingError,
    TileInferError,
    predict_large,
)
from tile_infer.engine import remote
from tile_infer.engine.backends import open_network
from tile_infer.engine.finish import finish
from tile_infer.engine.stitcher import object_locks
from tile_infer.engine.stitcher.lock import one_writer
from tile_infer.engine.stitcher.object_locks import ObjectLocks, _machine
from tile_infer.engine.stitcher.store import open_store
from tile_infer.engine.url import Url
from tile_infer.engine.url_store import UrlStore
from tile_infer.engine.verify import verify

from ..exactness.run_plan import tree
from ..exactness.seeded_networks import export, seeded, textured
from ..object_server import Fault, ObjectServer
from .test_lock import dead_process, refused_beside_another

OPTIONS: dict[str, Any] = {"workers": 1, "tile": (188, 220), "backend": "onnx", "verify": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image of several blocks as TIFF and Zarr, a network, and their masks."""
    found, pixels = tmp_path_factory.mktemp("objects"), textured(300, 9000)[:, :, 0]
    tifffile.imwrite(found / "slide.tif", pixels, tile=(64, 256))
    zarr.create_array(found / "slide.zarr", data=pixels, chunks=(150, 500))
    export(seeded(2, 0, classes=3), found / "net.onnx", 1)
    for kind in ("tif", "zarr"):
        done = run(found, found / f"{kind}.mask", found / f"slide.{kind}")
        assert done.plan.grid.blocks >= 4
    return found


def run(folder: Path, out: Any, image: Any = None, **options: Any) -> Any:
    image = folder / "slide.tif" if image is None else image
    return predict_large(image, folder / "net.onnx", out, **{**OPTIONS, **options})


def upload(folder: Path, name: str, server: ObjectServer, bucket: str) -> None:
    """Store a file or a folder in a bucket."""
    files = tree(folder / name) if (folder / name).is_dir() else {"": (folder / name).read_bytes()}
    for key, data in files.items():
        server.put(f"{bucket}/{name}/{key}".rstrip("/"), data)


def stopping_after(blocks: int) -> Callable[[Progress], None]:
    def stop(progress: Progress) -> None:
        if progress.blocks_done >= blocks:
            raise KeyboardInterrupt

    return stop


def lock_of(host: str, pid: int, machine: str) -> bytes:
    """Return what the lock of a process says."""
    return f"{pid}\n{host}\n2026-01-01T00:00:00+00:00\n{machine}\nother\n".encode()


@pytest.mark.parametrize(("kind", "scheme"), [("tif", "s3"), ("zarr", "s3"), ("tif", "http")])
def test_objects_of_a_mask_are_the_files_of_a_folder(
    folder: Path, object_server: ObjectServer, bucket: str, kind: str, scheme: str
) -> None:
    name, out = f"slide.{kind}", f"s3://{bucket}/deep/mask.zarr"
    upload(folder, name, object_server, bucket)
    object_server.requests()
    place = f"s3://{bucket}" if scheme == "s3" else f"{object_server.url}/{bucket}"
    assert run(folder, out, f"{place}/{name}").report["mask"] == out
    assert object_server.objects(bucket, "deep/mask.zarr/") == tree(folder / f"{kind}.mask")
    of_image = [each for each in object_server.requests() if f"/{name}" in each.path]
    if kind == "tif":  # never the whole file, and no pixel twice
        got = [each for each in of_image if each.method == "GET"]
        size_bytes = (folder / name).stat().st_size
        assert all(each.part for each in got)
        assert max(each.sent_bytes for each in got) < size_bytes / 8
        assert sum(each.sent_bytes for each in got) < 1.5 * size_bytes


def test_a_run_that_was_stopped_continues_by_what_is_listed(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    out = f"s3://{bucket}/mask.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, on_progress=stopping_after(2))
    begun = object_server.objects(bucket, "mask.zarr/")
    assert not [key for key in begun if "lock" in key]
    done = sum("records/c/" in key for key in begun)
    continued = run(folder, out)
    assert 0 < continued.report["blocks_run"] == continued.plan.grid.blocks - done
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")
    object_server.delete(f"{bucket}/mask.zarr/0/c/0/0")
    assert run(folder, out).report["blocks_run"] == 1
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")


def test_what_is_done_is_not_computed_again_because_the_server_stays_away(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    out = f"s3://{bucket}/mask.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, on_progress=stopping_after(2))
    done = sum("records/c/" in key for key in object_server.objects(bucket))
    for path in ("/records/c/", "/0/c/"):
        object_server.disturb(Fault("fail", "GET", path))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote, "RETRIES", 1)
            with pytest.raises(TileInferError, match=r"after 1 retries: .*; the same command"):
                run(folder, out)
    object_server.disturb()
    continued = run(folder, out)
    assert 0 < continued.report["blocks_run"] == continued.plan.grid.blocks - done


def test_other_settings_are_refused_and_overwrite_begins_again(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    out = f"s3://{bucket}/mask.zarr"
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, normalize="none", on_progress=stopping_after(1))
    object_server.put(f"{bucket}/mask.zarr-other/kept", b"of someone else")
    with pytest.raises(OutputError, match="was begun with other settings"):
        run(folder, out, normalize="unit")
    run(folder, out, overwrite=True)
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")
    assert object_server.get(f"{bucket}/mask.zarr-other/kept") == b"of someone else"


def test_what_is_no_mask_is_not_written_to(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    object_server.put(f"{bucket}/mine/notes.txt", b"mine")
    with pytest.raises(OutputError, match="exists and is no mask of tile-infer"):
        run(folder, f"s3://{bucket}/mine", overwrite=True)
    assert object_server.objects(bucket) == {"mine/notes.txt": b"mine"}


def test_a_run_that_fails_before_its_first_block_leaves_nothing(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    def refuse(_: Any) -> None:
        raise ValueError("not this plan")

    with pytest.raises(ValueError, match="not this plan"):
        run(folder, f"s3://{bucket}/mask.zarr", on_plan=refuse)
    assert object_server.objects(bucket) == {}


def test_parts_and_finish_leave_the_objects_of_one_run(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    out = f"s3://{bucket}/mask.zarr"
    run(folder, out, part="1/2")
    with pytest.raises(OutputError, match="run the parts again"):
        finish(out)
    run(folder, out, part="0/2")
    finish(out)
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")


def test_workers_of_a_cluster_leave_the_objects_of_one_run(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    pytest.importorskip("distributed")
    from .test_cluster import cluster

    upload(folder, "slide.tif", object_server, bucket)
    out = f"s3://{bucket}/mask.zarr"
    with cluster(2) as client:
        run(folder, out, f"s3://{bucket}/slide.tif", client=client)
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")


def test_a_mask_at_a_url_is_verified(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    out = f"s3://{bucket}/tif.mask"
    upload(folder, "tif.mask", object_server, bucket)
    with pytest.raises(SettingError, match="is in no folder; say of what it is with image=PLACE"):
        verify(out, share=0.01)
    _, certificate = verify(out, folder / "slide.tif", folder / "net.onnx", share=0.01)
    assert certificate is not None
    assert certificate.to_dict()["labels_differing"] == 0


def test_a_second_writer_is_refused_and_the_lock_goes_in_the_end(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    out, refused = f"s3://{bucket}/mask.zarr", list[str]()

    def again(progress: Progress) -> None:
        if progress.blocks_done == 1:
            with pytest.raises(OutputError) as caught:
                run(folder, out, break_lock=True)
            refused.append(str(caught.value))

    run(folder, out, on_progress=again)
    assert len(refused) == 1
    named = f"process {os.getpid()} of {socket.gethostname()} (this one); wait until it has ended"
    assert named in refused[0]
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")


def test_another_process_is_refused_as_long_as_it_lives(folder: Path, bucket: str) -> None:
    out = f"s3://{bucket}/mask.zarr"
    refused_beside_another(out, partial(run, folder, out))
    with one_writer(open_store(out)):
        pass


def test_a_dead_writers_lock_of_another_machine_has_to_be_broken(
    folder: Path, object_server: ObjectServer, bucket: str
) -> None:
    out, place = f"s3://{bucket}/mask.zarr", f"{bucket}/mask.zarr/tile_infer/lock"
    for host in (socket.gethostname(), "elsewhere"):  # of two machines of one name, too
        object_server.put(place, lock_of(host, dead_process(), "another machine"))
        with pytest.raises(OutputError, match=f"of {host}; if that has ended, give break_lock=Tru"):
            run(folder, out)
    assert object_server.objects(bucket).keys() == {"mask.zarr/tile_infer/lock"}
    run(folder, out, break_lock=True)
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")


def locks_at(bucket: str) -> ObjectLocks:
    return ObjectLocks(UrlStore(Url.of(f"s3://{bucket}/mask.zarr")), "tile_infer")


def test_what_a_dead_process_of_this_machine_holds_is_taken_over(
    object_server: ObjectServer, bucket: str
) -> None:
    for pid in (dead_process(), os.getpid()):  # one of this number that was before
        left = lock_of(socket.gethostname(), pid, _machine())
        object_server.put(f"{bucket}/mask.zarr/tile_infer/lock", left)
        locks = locks_at(bucket)
        locks.take("lock", False, 0.0)
        locks.close()
        assert object_server.objects(bucket) == {}


def test_a_lock_without_text_has_to_be_broken(object_server: ObjectServer, bucket: str) -> None:
    object_server.put(f"{bucket}/mask.zarr/tile_infer/lock", b"")
    with pytest.raises(OutputError, match="a process that is not named"):
        locks_at(bucket).take("lock", False, 0.0)
    locks_at(bucket).take("lock", True, 0.0)


@pytest.mark.parametrize("left", [False, True])
def test_of_many_that_try_at_once_one_gets_the_lock(
    object_server: ObjectServer, bucket: str, left: bool
) -> None:
    if left:
        text = lock_of(socket.gethostname(), dead_process(), _machine())
        object_server.put(f"{bucket}/mask.zarr/tile_infer/lock", text)
    many = [locks_at(bucket) for _ in range(8)]

    def got(locks: ObjectLocks) -> bool:
        try:
            locks.take("lock", False, 0.0)
        except OutputError:
            return False
        return True

    with ThreadPoolExecutor(len(many)) as threads:
        held = list(threads.map(got, many))
    assert sum(held) == 1
    for locks in many:
        locks.close()
    assert object_server.objects(bucket) == {}


def test_who_releases_a_lock_leaves_that_of_another(
    object_server: ObjectServer, bucket: str
) -> None:
    locks = locks_at(bucket)
    locks.take("lock", False, 0.0)
    taken_over = lock_of("elsewhere", 1, "another machine")
    object_server.put(f"{bucket}/mask.zarr/tile_infer/lock", taken_over)
    locks.close()
    assert object_server.get(f"{bucket}/mask.zarr/tile_infer/lock") == taken_over


def test_where_it_cannot_be_asked_who_lives_a_lock_has_to_be_broken(
    object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = lock_of(socket.gethostname(), dead_process(), _machine())
    object_server.put(f"{bucket}/mask.zarr/tile_infer/lock", left)
    monkeypatch.setattr(object_locks, "os", SimpleNamespace(name="nt", getpid=os.getpid))
    with pytest.raises(OutputError, match="if that has ended, give break_lock=True"):
        locks_at(bucket).take("lock", False, 0.0)
    locks_at(bucket).take("lock", True, 0.0)


def test_a_lock_goes_though_its_deletion_is_not_answered_at_once(
    object_server: ObjectServer, bucket: str
) -> None:
    locks = locks_at(bucket)
    locks.take("lock", False, 0.0)
    object_server.disturb(Fault("stall", "POST|DELETE", times=1))
    locks.close()
    assert object_server.objects(bucket) == {}


def test_locks_are_found_without_a_listing_of_the_records(
    object_server: ObjectServer, bucket: str
) -> None:
    object_server.put(f"{bucket}/mask.zarr/tile_infer/records/c/0/0", b"")
    object_server.put(f"{bucket}/mask.zarr/tile_infer/lock.0-of-2", b"")
    object_server.requests()
    assert locks_at(bucket).names() == ["lock.0-of-2"]
    (asked,) = object_server.requests()
    assert "delimiter" in asked.query


def test_a_listing_that_breaks_off_is_continued_and_no_more_is_asked_for_than_is_used(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstore, asked = pytest.importorskip("obstore"), list[Any]()

    async def listing(_: Any, prefix: str | None, *, offset: str | None) -> AsyncIterator[Any]:
        asked.append(offset)
        yield [{"path": f"{prefix}/{i}"} for i in range(10) if f"{prefix}/{i}" > (offset or "")][:4]
        if len(asked) < 3:
            raise obstore.exceptions.GenericError("Generic S3 error: broken off")

    async def keys(some: int) -> list[str]:
        found = list[str]()
        async for key in UrlStore(Url.of(f"s3://{bucket}")).list_prefix("a"):
            found.append(key)
            if len(found) == some:
                break
        return found

    monkeypatch.setattr(obstore, "list", listing)
    assert sync(keys(99)) == [f"a/{i}" for i in range(10)]
    assert asked == [None, "a/3", "a/7"]
    assert sync(keys(1)) == ["a/0"]
    assert len(asked) == 4


FAULTS = {
    "some fail, some answers are lost": [
        Fault("fail", every=4),
        Fault("lost", "PUT|DELETE", every=3),
    ],
    "some stall, some answers are cut": [
        Fault("stall", "GET|PUT", every=60),
        Fault("cut", "GET", every=5),
    ],
    "the answers to lock and plan are lost": [
        Fault("lost", "PUT", "lock$|tile_infer/zarr.json", times=2)
    ],
    "the answers to lock and plan stall": [
        Fault("stall", "PUT", "lock$|tile_infer/zarr.json", times=2)
    ],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_run_is_right_though_requests_fail_now_and_then(
    folder: Path, object_server: ObjectServer, bucket: str, faults: list[Fault]
) -> None:
    out = f"s3://{bucket}/mask.zarr"
    object_server.disturb(*faults)
    run(folder, out)
    object_server.disturb()
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")


@pytest.mark.parametrize(
    ("kind", "path"), [("stall", ""), ("fail", "/0/c/"), ("stall", "records/c/")]
)
def test_a_server_that_stays_away_ends_the_run_in_one_line_and_it_continues(
    folder: Path,
    object_server: ObjectServer,
    bucket: str,
    soon: pytest.MonkeyPatch,
    kind: Any,
    path: str,
) -> None:
    out = f"s3://{bucket}/mask.zarr"
    object_server.disturb(Fault(kind, "PUT", path))
    with pytest.raises(TileInferError, match=rf"{out}.* does not answer.*: ") as caught:
        run(folder, out)
    assert "\n" not in str(caught.value)
    object_server.disturb()
    soon.undo()
    run(folder, out)
    assert object_server.objects(bucket, "mask.zarr/") == tree(folder / "tif.mask")


def test_a_bucket_that_is_not_there_is_told(folder: Path, bucket: str) -> None:
    with pytest.raises(OutputError, match=r"s3://none/m\.zarr cannot be written to \(.*no such bu"):
        run(folder, "s3://none/m.zarr")
    with pytest.raises(ImageError, match=r"s3://none/a\.tif does not exist; check the URL"):
        run(folder, f"s3://{bucket}/mask.zarr", "s3://none/a.tif")


def test_keys_that_are_not_there_or_not_allowed_are_told(
    folder: Path, object_server: ObjectServer, bucket: str, soon: pytest.MonkeyPatch
) -> None:
    object_server.disturb(Fault("deny"))
    with pytest.raises(TileInferError, match="is not allowed by the server; check the keys"):
        run(folder, f"s3://{bucket}/mask.zarr")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        soon.delenv(name)
    soon.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # where nobody has keys
    with pytest.raises(TileInferError, match="needs keys in the environment, such as AWS_ACCESS"):
        run(folder, f"s3://{bucket}/mask.zarr")
    with pytest.raises(TileInferError, match="needs keys in the environment, such as AWS_ACCESS"):
        run(folder, folder / "none.zarr", f"s3://{bucket}/slide.tif")


def test_what_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ImportError, match=r"needs obstore: pip install 'tile-infer\[cloud\]'"):
        run(folder, "s3://bucket/mask.zarr")


def test_a_server_of_files_takes_no_mask(folder: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written to; use out=PATH, s3:// or gs://"):
        run(folder, "http://host/mask.zarr")


SECRETS = ("s3cr3t", "51gn3d")


@pytest.mark.parametrize("fault", [None, Fault("fail"), Fault("deny")], ids=str)
def test_no_secret_of_a_url_gets_into_mask_report_or_error(
    folder: Path,
    object_server: ObjectServer,
    bucket: str,
    soon: pytest.MonkeyPatch,
    tmp_path: Path,
    fault: Fault | None,
) -> None:
    upload(folder, "slide.tif", object_server, bucket)
    signed = f"{object_server.url}/{bucket}/slide.tif?sign={SECRETS[1]}"
    image = signed.replace("://", f"://me:{SECRETS[0]}%40@")
    object_server.requests()
    if fault is None:
        soon.undo()
        done = run(folder, tmp_path / "mask.zarr", image)
        assert tree(tmp_path / "mask.zarr") == tree(folder / "tif.mask")
        told = f"{done.report} {done!r} {done.plan}"
    else:
        object_server.disturb(fault)
        with pytest.raises(TileInferError) as caught:
            run(folder, tmp_path / "mask.zarr", image)
        told = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in SECRETS if secret in told]
    asked = object_server.requests()
    assert asked
    login = b64encode(f"me:{SECRETS[0]}@".encode()).decode()
    assert {(each.login, each.query) for each in asked} == {
        (f"Basic {login}", f"sign={SECRETS[1]}")
    }


@pytest.mark.parametrize(
    "text", ["ftp://me:s3cr3t@host/a", "s3://", "s3://me:s3cr3t@b/a", "gs://b/a?s3cr3t", "az://a/b"]
)
def test_urls_of_other_kinds_are_refused(folder: Path, text: str) -> None:
    for image, out in ((None, text), (text, None)):
        with pytest.raises(SettingError, match=r"; use s3://|; give it without") as caught:
            run(folder, out, image)
        assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_network_by_url_is_refused_without_its_secrets(kind: Any) -> None:
    with pytest.raises(ModelError, match="not by URL; download it") as caught:
        open_network(kind("https://me:s3cr3t@host/net.onnx"))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("kind", ["s3", "HTTPS"])
def test_a_path_that_was_a_url_is_refused(folder: Path, kind: str) -> None:
    with pytest.raises(SettingError, match=rf"a URL \({kind}://…\) became a path; give it as text"):
        run(folder, Path(f"{kind}://bucket/mask.zarr"))
