"""What holds for all tests."""

import gc
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tile_infer.engine import planning


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


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what writes that failed leave, within the test that expects the warnings of it."""
    yield
    gc.collect()
