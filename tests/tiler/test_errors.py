"""Failures of any kind become one line that names stage, file and part of the work."""

import threading

import pytest

from tile_infer.tiler.errors import ImageError, OutputError, TileInferError, failing_as


def told(error: BaseException, part: str = "") -> BaseException:
    """Return what comes of an error."""
    with pytest.raises(BaseException) as caught, failing_as(OutputError, "writing", "m.zarr", part):  # noqa: PT011
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "part", "text"),
    [
        (
            OSError(28, "No space left on device"),
            "block 3",
            "writing m.zarr, block 3: No space left on device",
        ),
        (RuntimeError("one\ntwo"), "", "writing m.zarr: one"),
        (MemoryError(), "block 3", "writing m.zarr, block 3: not enough memory"),
        (KeyError(), "", "writing m.zarr: KeyError"),
    ],
)
def test_an_error_of_others_names_what_was_done(error: Exception, part: str, text: str) -> None:
    found = told(error, part)
    assert isinstance(found, OutputError)
    assert str(found) == text
    assert found.__cause__ is error


def test_an_error_of_ours_keeps_its_kind_and_names_the_part() -> None:
    error = ImageError("a.tif is broken")
    assert told(error) is error
    found = told(error, "block 3")
    assert type(found) is ImageError
    assert str(found) == "a.tif is broken (writing block 3)"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_thread_is_a_failure_but_a_signal_is_not(kind: type[BaseException]) -> None:
    assert isinstance(told(kind()), kind)
    found: list[BaseException] = []
    thread = threading.Thread(target=lambda: found.append(told(kind(), "block 3")))
    thread.start()
    thread.join()
    assert isinstance(found[0], TileInferError)
    assert str(found[0]) == f"writing m.zarr, block 3: {kind.__name__}"
