"""Zarr stores: open one, claim it for a plan, list its chunks."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.buffer.cpu import Buffer
from zarr.core.buffer import default_buffer_prototype
from zarr.core.common import concurrent_map
from zarr.core.sync import sync  # runs a store's coroutines on zarr's own loop, whoever calls
from zarr.storage import LocalStore

from ...tiler.errors import OutputError, cause_of
from ..url import Url, located
from ..url_store import UrlStore
from .holder import LOCK

if TYPE_CHECKING:
    ZarrArray: TypeAlias = zarr.Array[Any]
else:
    ZarrArray = zarr.Array

OURS = "tile_infer"
"""Group inside the mask's group: its attributes hold the plan, its array the records."""

BEGUN = f"{OURS}/records/zarr.json"
"""What is written last when a mask is begun."""

_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.partial$")
_WHOLE = re.compile(r"zarr\.json|\d+")
"""Names of zarr's files: metadata and chunks."""

_PLAN_KEY = f"{OURS}/zarr.json"

_DELETIONS = 16
"""Objects deleted at the same time."""


def open_store(out: str | os.PathLike[str] | Url | Store) -> Store:
    """Return the store of an output; nothing is written yet.

    Raises:
        OutputError: The path is taken by something else, or cannot be written.
        SettingError: It is a URL of another kind than ``s3://`` and ``gs://``.
    """
    if isinstance(out, Store):
        return out
    path = located(out)
    if isinstance(path, Url):
        if path.is_read_only:
            raise OutputError(f"{path} cannot be written to; use out=PATH, s3:// or gs://")
        return UrlStore(path)
    if path.is_symlink():  # what it leads to is written to
        path = path.resolve()
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} exists and is a file; choose another place with out")
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there} cannot be written to; choose another place with out")
    return LocalStore(path)


def stored_plan(store: Store, *, damaged_ok: bool = False) -> dict[str, Any] | None:
    """Return the plan that claimed the store, as plain values; ``None`` for an empty store.

    Args:
        store: The store.
        damaged_ok: Return an empty plan where the stored one cannot be read.

    Raises:
        OutputError: The store holds something that this package did not write.
    """
    if isinstance(store, LocalStore) and not store.root.exists():
        return None  # to read it would create it
    found = sync(store.get(_PLAN_KEY, default_buffer_prototype()))
    if found is None:
        if not _is_empty(store):
            raise OutputError(
                f"{place(store)} exists and is no mask of tile-infer; choose another place with out"
            )
        return None
    try:
        plan = json.loads(found.to_bytes())["attributes"]["plan"]
    except (ValueError, KeyError, TypeError):
        plan = None
    if isinstance(plan, dict):
        return plan
    if damaged_ok:
        return {}
    raise OutputError(
        f"{place(store)} holds a plan that cannot be read; use overwrite to start again"
    )


def _is_empty(store: Store) -> bool:
    if isinstance(store, LocalStore):  # what a claim left behind that was cut short does not count
        ours = store.root / OURS
        without_meaning = {ours, *ours.glob(f"{LOCK}*"), *_cut_files(ours)}
        return all(path in without_meaning for path in store.root.rglob("*"))

    async def first() -> str | None:
        async for key in store.list():
            if not _is_lock(key):
                return key
        return None

    return sync(first()) is None


def _is_lock(key: str) -> bool:
    return key.startswith(f"{OURS}/{LOCK}")


def claim(store: Store, plan: dict[str, Any]) -> dict[str, Any]:
    """Store the plan unless another is there already; return the one that is.

    The plan lies in the attributes of a Zarr group whose metadata is created exclusively, so that
    of two processes that begin at once one wins and the other follows its plan.
    """
    node = {"zarr_format": 3, "node_type": "group", "attributes": {"plan": plan}}
    text = json.dumps(node, indent=1, sort_keys=True).encode()
    try:
        sync(store.set_if_not_exists(_PLAN_KEY, Buffer.from_bytes(text)))
    except OSError as error:
        why = cause_of(error)
        raise OutputError(
            f"{place(store)} cannot be written to ({why}); choose another place with out"
        ) from error
    found = stored_plan(store)
    if found is None:
        raise OutputError(f"{place(store)} does not keep what is written to it")
    return found


def clear(store: Store) -> None:
    """Delete a mask that this package wrote; the lock on it stays."""
    # The plan is the last to go: with it, what is left is known as ours.
    if not isinstance(store, LocalStore):
        sync(_clear_objects(store))
        return
    ours, plan = store.root / OURS, store.root / _PLAN_KEY
    for path in [*store.root.iterdir(), *(each for each in ours.iterdir() if each != plan), plan]:
        if path == ours or path.name.startswith(LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


async def _clear_objects(store: Store) -> None:
    keys = [(key,) async for key in store.list() if key != _PLAN_KEY and not _is_lock(key)]
    await concurrent_map(keys, store.delete, limit=_DELETIONS)
    await store.delete(_PLAN_KEY)


def remove_cut_files(store: Store) -> None:
    """Delete what writes left behind that were cut short; it is written again."""
    if isinstance(store, LocalStore):
        for path in _cut_files(store.root):
            path.unlink(missing_ok=True)


def _cut_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that are no whole ones.

    These are zarr's temporary files, ``NAME.<32 digits>.partial``, and what a power cut took the
    content of.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if _TEMPORARY.search(name) or (_WHOLE.fullmatch(name) and path.stat().st_size == 0):
                yield path


def present_chunks(store: Store, array: ZarrArray) -> NDArray[np.bool_]:
    """Say of each chunk of an array whether it exists: a flag each, for they may be millions."""
    present = np.zeros(array.cdata_shape, np.bool_)
    inside = f"{array.path}/c/"

    def mark(key: str) -> None:
        names = key.split("/")
        if len(names) == present.ndim and all(map(str.isdecimal, names)):
            index = tuple(map(int, names))
            if all(n < length for n, length in zip(index, present.shape, strict=True)):
                present[index] = True

    async def mark_all() -> None:
        async for key in store.list_prefix(inside):
            mark(key.removeprefix(inside))

    if isinstance(store, LocalStore):  # a hundred times as fast as zarr's listing
        for key in _scan(os.path.join(store.root, inside)):  # noqa: PTH118 - hot path
            mark(key)
    else:
        sync(mark_all())
    return present


def _scan(root: str, folder: str = "") -> Iterator[str]:
    try:
        entries = os.scandir(root + folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            if entry.is_dir():
                yield from _scan(root, f"{folder}{entry.name}/")
            elif entry.stat().st_size > 0:  # an empty chunk is one that a power cut took
                yield folder + entry.name


def place(store: Store) -> str:
    """Return where a store is, for people."""
    return str(store.root) if isinstance(store, LocalStore) else str(store)
