"""What holds for all tests."""

import gc
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tile_infer.engine import planning, remote

from .object_server import ObjectServer, started


@pytest.fixture(autouse=True)
def nothing_depends_on_a_clock(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Let no plan be chosen by what was faster today; ``test_calibration`` undoes it.

    Nor by what another test has measured: each has a cache of its own.
    """
    cache = tmp_path_factory.getbasetemp() / "cache" / uuid4().hex
    monkeypatch.setenv("TILE_INFER_CACHE", str(cache))
    monkeypatch.setattr(planning, "WORTH_TILES", sys.maxsize)


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """An S3 server on loopback."""
    for name in ("obstore", "moto"):
        pytest.importorskip(name, reason=f"{name} is not installed (of the extras cloud and dev)")
    with started() as server:
        yield server


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket that ``s3://`` leads to; requests without an answer are soon made again."""
    for name, value in (
        ("AWS_ENDPOINT_URL", object_server.url),
        ("AWS_ACCESS_KEY_ID", "none"),
        ("AWS_SECRET_ACCESS_KEY", "none"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "REQUEST_SECONDS", 3.0)
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.01)
    yield object_server.new_bucket()
    object_server.disturb()


@pytest.fixture
def soon(bucket: str) -> Iterator[pytest.MonkeyPatch]:
    """Requests are given up within seconds, until it is undone.

    What has to succeed comes after that: a server on a busy machine may take as long.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "REQUEST_SECONDS", 1.5)
        patch.setattr(remote, "RETRIES", 1)
        yield patch


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what writes that failed leave, within the test that expects the warnings of it."""
    yield
    gc.collect()
