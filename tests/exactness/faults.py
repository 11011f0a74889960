"""Faults that are let into a run: at one call of one function, or from that call on."""

import asyncio
import errno
import io
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import zarr
from filelock import SoftFileLock
from zarr.core.buffer.cpu import Buffer
from zarr.storage import LocalStore, MemoryStore, _local

from tile_infer.engine.backends.base import Output
from tile_infer.engine.backends.onnx import OnnxNetwork, OnnxRunner
from tile_infer.engine.sources.array import ArraySource
from tile_infer.engine.sources.positional_file import PositionalFile
from tile_infer.engine.sources.tiff import TiffSource
from tile_infer.engine.stitcher import mask as mask_module
from tile_infer.engine.stitcher import store as store_module

Call = Callable[..., Any]
"""A function that is replaced, or what stands in for it."""

Kind = Callable[[Call, tuple[Any, ...]], Any]
"""What happens instead of a call: given the function and its arguments, it raises or returns."""


def raising(error: Callable[[], BaseException]) -> Kind:
    def kind(call: Call, arguments: tuple[Any, ...]) -> Any:
        raise error()

    return kind


def changed(change: Callable[[Any], Any]) -> Kind:
    """Do what was asked, and return something else."""
    return lambda call, arguments: change(call(*arguments))


def system_error(number: int) -> Kind:
    return raising(lambda: OSError(number, os.strerror(number)))


ENOSPC, EIO = system_error(errno.ENOSPC), system_error(errno.EIO)
ERROR, MEMORY = raising(lambda: RuntimeError("it broke")), raising(MemoryError)
DIES = raising(SystemExit)
"""Ends the thread that it happens in."""


def _partial(call: Call, arguments: tuple[Any, ...]) -> Any:
    """Leave what a write leaves behind that is cut short by a power cut or a full disk."""
    path, value, *_ = arguments
    path.parent.mkdir(parents=True, exist_ok=True)
    data = value.to_bytes()
    (path.parent / f"{path.stem}.{'0a1b' * 8}.partial").write_bytes(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _torn(call: Call, arguments: tuple[Any, ...]) -> Any:
    """Leave half of a chunk or record under its own name; metadata is never so."""
    path, value, *_ = arguments
    if "/c/" in str(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        data = value.to_bytes()
        path.write_bytes(data[: len(data) // 2])
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _lost(call: Call, arguments: tuple[Any, ...]) -> Any:
    """Say that all was written, and write nothing."""


class _Full(io.BufferedWriter):
    """A file of which a part can be written."""

    def __init__(self, path: Path, mode: str) -> None:
        super().__init__(io.FileIO(path, mode.replace("b", "")))

    def write(self, data: Any) -> int:
        super().write(memoryview(data)[: len(data) // 2])
        self.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _full(call: Call, arguments: tuple[Any, ...]) -> Any:
    return _Full(arguments[0], arguments[1])


def _fewer_rows(output: Output) -> Output:
    assert output.labels is not None
    return Output(output.labels[:, :-1], output.scores)


@dataclass(frozen=True)
class Site:
    """A function of which a call can fail."""

    owner: Any
    name: str
    kinds: dict[str, Kind]
    when: Callable[..., bool] = field(default=lambda *arguments: True)
    """Which calls count."""
    heals: frozenset[str] = frozenset()
    """Kinds that a run may get over: what cannot be read back is made again."""


def _begins_a_file(*arguments: Any) -> bool:
    path, mode = [*arguments, "r", "r"][:2]
    return str(path).endswith(".partial") and "b" in mode and mode[0] in "wx"


FILE_SITES = {
    "opening": Site(TiffSource, "_open", {"EIO": EIO, "error": ERROR}),
    # Where memory runs out for a network, smaller tiles are run; that has tests of its own.
    "prepare": Site(OnnxNetwork, "prepare", {"error": ERROR, "dies": DIES}),
    "source": Site(
        TiffSource,
        "read",
        {
            "EIO": EIO,
            "error": ERROR,
            "memory": MEMORY,
            "dies": DIES,
            "short": changed(lambda pixels: pixels[:-1]),
        },
    ),
    "bytes": Site(
        PositionalFile,
        "_read_once",
        {
            "EIO": EIO,
            "ends": changed(lambda data: b""),
            "rotten": changed(lambda data: bytes(255 - byte for byte in data)),
        },
    ),
    "network": Site(
        OnnxRunner,
        "__call__",
        {
            "error": ERROR,
            "dies": DIES,
            "window": changed(_fewer_rows),
            "none": changed(lambda output: Output(None, None)),
            "no tiles": changed(lambda output: Output(output.labels[:0], None)),
        },
    ),
    "put": Site(
        _local,
        "_put",
        {
            "ENOSPC": ENOSPC,
            "EIO": EIO,
            "partial": _partial,
            "torn": _torn,
            "lost": _lost,
            "dies": DIES,
        },
        heals=frozenset({"lost"}),
    ),
    "get": Site(_local, "_get", {"EIO": EIO, "dies": DIES}, heals=frozenset({"EIO", "dies"})),
    "scan": Site(store_module, "_scan", {"EIO": EIO}),
    "record": Site(mask_module, "write_record", {"EIO": EIO, "error": ERROR, "dies": DIES}),
    "write": Site(mask_module.Mask, "write", {"EIO": EIO, "error": ERROR, "dies": DIES}),
    "level": Site(mask_module, "build_level", {"ENOSPC": ENOSPC, "error": ERROR, "dies": DIES}),
    "attributes": Site(zarr.Group, "update_attributes", {"EIO": EIO, "error": ERROR}),
    "claim": Site(LocalStore, "set_if_not_exists", {"ENOSPC": ENOSPC, "error": ERROR}),
    "lock": Site(SoftFileLock, "_acquire", {"ENOSPC": ENOSPC}),
    "pixels": Site(
        zarr.Array,
        "__getitem__",
        {"EIO": EIO, "memory": MEMORY},
        heals=frozenset({"EIO", "memory"}),
    ),
    "rename": Site(
        Path, "replace", {"EIO": EIO}, lambda path, *rest: path.name.endswith(".partial")
    ),
    "file": Site(Path, "open", {"ENOSPC": ENOSPC, "full": _full}, _begins_a_file),
    "deflate": Site(zlib, "compress", {"memory": MEMORY, "dies": DIES}),
    "thread": Site(
        threading.Thread, "start", {"none": raising(lambda: RuntimeError("can't start new thread"))}
    ),
}


def _later(kind: Kind) -> Kind:
    """Let a coroutine fail, not the call that makes it."""

    async def awaited(call: Call, arguments: tuple[Any, ...]) -> Any:
        return kind(call, arguments)

    return awaited


async def _half_set(call: Call, arguments: tuple[Any, ...]) -> Any:
    store, key, value = arguments
    if "/c/" in key:
        await call(store, key, Buffer.from_bytes(value.to_bytes()[: len(value) // 2]))
    raise OSError(errno.EIO, os.strerror(errno.EIO))


_STORE_KINDS = {
    "EIO": _later(EIO),
    "error": _later(ERROR),
    "dies": _later(DIES),
    "cancelled": _later(raising(asyncio.CancelledError)),
}

MEMORY_SITES = {
    "array": Site(
        ArraySource, "read", {"error": ERROR, "short": changed(lambda pixels: pixels[:, 1:])}
    ),
    "set": Site(
        MemoryStore,
        "set",
        {**_STORE_KINDS, "torn": _half_set, "lost": _later(_lost)},
        heals=frozenset({"lost"}),
    ),
    "first set": Site(MemoryStore, "set_if_not_exists", _STORE_KINDS),
    "get from": Site(MemoryStore, "get", _STORE_KINDS, heals=frozenset(_STORE_KINDS)),
    "list": Site(MemoryStore, "list_prefix", {"EIO": EIO, "error": ERROR}),
}

SITES = FILE_SITES | MEMORY_SITES


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when."""

    site: str
    kind: str
    share: int
    """Which call, in thousandths of those that a run makes."""
    lasting: bool = False
    """Whether all later calls fail as well."""

    def __repr__(self) -> str:
        calls = "from" if self.lasting else "at"
        return f"{self.site} {self.kind} {calls} {self.share}/1000"


@dataclass
class Happened:
    """Where a fault happened, for the first time."""

    calls: int = 0
    thread: str | None = None
    arguments: tuple[Any, ...] = ()


@contextmanager
def let_in(fault: Fault, calls: int) -> Iterator[Happened]:
    """Let a fault happen, where a run makes so many calls."""
    site = SITES[fault.site]
    happened, lock, fatal = Happened(), threading.Lock(), fault.share * calls // 1000
    real, kind = getattr(site.owner, site.name), site.kinds[fault.kind]

    def stand_in(*arguments: Any, **named: Any) -> Any:
        if not site.when(*arguments):
            return real(*arguments, **named)
        with lock:
            number = happened.calls
            happened.calls += 1
            now = number == fatal or (fault.lasting and number > fatal)
            if now and happened.thread is None:
                happened.thread = threading.current_thread().name
                happened.arguments = arguments
        return kind(partial(real, **named), arguments) if now else real(*arguments, **named)

    with patch.object(site.owner, site.name, stand_in):
        yield happened


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the calls that a run makes of each site."""
    counts = dict.fromkeys(SITES, 0)
    lock = threading.Lock()

    def counting(name: str, site: Site, real: Call) -> Call:
        def stand_in(*arguments: Any, **named: Any) -> Any:
            if site.when(*arguments):
                with lock:
                    counts[name] += 1
            return real(*arguments, **named)

        return stand_in

    with ExitStack() as patched:
        for name, site in SITES.items():
            real = getattr(site.owner, site.name)
            patched.enter_context(patch.object(site.owner, site.name, counting(name, site, real)))
        yield counts
