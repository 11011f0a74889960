"""URLs on the command line."""

from pathlib import Path

import numpy as np
import tifffile
import zarr

from ..object_server import ObjectServer
from .conftest import Run, Write


def test_image_and_mask_at_urls(
    run: Run, image: Write, bright: Path, object_server: ObjectServer, bucket: str
) -> None:
    object_server.put(f"{bucket}/in/slide.tif", image().read_bytes())
    url = f"s3://{bucket}/in/slide.tif"
    ran = run(url, "--model", bright, "--report", "run.json")
    assert (ran.code, ran.err) == (0, ran.err)
    assert f"s3://{bucket}/in/slide.bright.zarr" in ran.out
    assert Path("run.json").exists()
    ran = run(url, "--model", bright, "--out", "near.zarr", "--preview", "near.png")
    assert ran.code == 0
    near = zarr.open_array(Path("near.zarr", "0"), mode="r")
    far = object_server.objects(bucket, "in/slide.bright.zarr/0/c/")
    assert far == {
        str(path.relative_to("near.zarr/0/c")): path.read_bytes()
        for path in Path("near.zarr/0/c").rglob("*")
        if path.is_file()
    }
    assert np.array_equal(np.asarray(near[:]), tifffile.imread("slide.tif") > 127)
    assert run("plan", url, "--model", bright).code == 0
    mask = f"s3://{bucket}/in/slide.bright.zarr"
    assert run("finish", mask).code == 0
    assert run("verify", mask, "--image", url, "--model", bright).code == 0


def test_a_lock_has_to_be_broken_and_no_secret_is_printed(
    run: Run, image: Write, bright: Path, object_server: ObjectServer, bucket: str
) -> None:
    object_server.put(f"{bucket}/slide.tif", image().read_bytes())
    object_server.put(f"{bucket}/m.zarr/tile_infer/lock", b"1\nelsewhere\n")
    url = f"{object_server.url}/{bucket}/slide.tif?sign=51gn3d".replace("://", "://me:s3cr3t@")
    tokens = (url, "--model", bright, "--out", f"s3://{bucket}/m.zarr", "--report", "run.json")
    ran = run(*tokens)
    assert (ran.code, "of elsewhere; if that has ended, give --break-lock" in ran.err) == (1, True)
    done = run(*tokens, "--break-lock")
    assert done.code == 0
    told = ran.out + ran.err + done.out + done.err + Path("run.json").read_text()
    assert f"s3://{bucket}/m.zarr" in told
    assert not [secret for secret in ("s3cr3t", "51gn3d") if secret in told]


def test_no_secret_of_a_place_that_is_refused_is_printed(run: Run, bright: Path) -> None:
    ran = run("slide.tif", "--model", bright, "--out", "https://me:s3cr3t@host/m.tif?sign=51gn3d")
    assert (ran.code, "https://host/m.tif would be a folder of Zarr" in ran.err) == (2, True)
    assert not [secret for secret in ("s3cr3t", "51gn3d") if secret in ran.out + ran.err]


def test_several_images_go_into_one_place(
    run: Run, image: Write, bright: Path, object_server: ObjectServer, bucket: str
) -> None:
    for name in ("a.tif", "b.tif"):
        object_server.put(f"{bucket}/{name}", image(name).read_bytes())
    urls = [f"{object_server.url}/{bucket}/{name}" for name in ("a.tif", "b.tif")]
    assert run(*urls, "--model", bright, "--out", f"s3://{bucket}/masks/").code == 0
    keys = object_server.objects(bucket, "masks/")
    assert {key.partition("/")[0] for key in keys} == {"a.bright.zarr", "b.bright.zarr"}
    ran = run(urls[0], urls[0], "--model", bright, "--out", f"s3://{bucket}/masks/")
    assert (ran.code, "is given twice" in ran.err) == (2, True)


def test_what_cannot_go_beside_a_url_is_refused_before_the_run(
    run: Run, image: Write, bright: Path, object_server: ObjectServer, bucket: str
) -> None:
    object_server.put(f"{bucket}/slide.tif", image().read_bytes())
    ran = run(f"s3://{bucket}/slide.tif", "--model", bright, "--preview", ".png")
    assert (ran.code, "name a file for it" in ran.err) == (2, True)
    ran = run(f"{object_server.url}/{bucket}/slide.tif", "--model", bright)
    assert (ran.code, "give --out PATH" in ran.err) == (2, True)
    ran = run(f"s3://{bucket}/none.tif", "--model", bright)
    assert (ran.code, f"s3://{bucket}/none.tif does not exist" in ran.err) == (1, True)
    assert object_server.objects(bucket).keys() == {"slide.tif"}
