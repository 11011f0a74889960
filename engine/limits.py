"""What a new run needs, held against what is there before anything is written."""

import shutil
from pathlib import Path

from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore

from ..tiler.errors import OutputError, SettingError
from .memory import available_bytes, human, resident_bytes
from .plan import Plan
from .settings import Settings
from .sizing import BASE_BYTES
from .stitcher.store import place


def check_memory_asked(settings: Settings) -> None:
    """Refuse to use more memory than there is, before the network is measured within it.

    Raises:
        SettingError: ``memory`` is more.
    """
    there = _memory_bytes()
    if settings.memory is not None and settings.memory > there:
        raise SettingError(
            f"memory={human(settings.memory)} is more than the {human(there)} that can be had; "
            "use less, or leave it out"
        )


def check_limits(plan: Plan, store: Store | None, settings: Settings) -> None:
    """Refuse a plan whose run would end for want of memory or disk, or write too much.

    Args:
        plan: A new plan.
        store: Where its mask would go, if that is known; nothing is written there, and what it
            holds would be deleted.
        settings: Their ``memory`` and ``max_output`` count.

    Raises:
        SettingError: It needs more memory than it may use, or writes more than is allowed.
        OutputError: The disk may be too small.
    """
    _check_output(plan, settings)
    _check_memory(plan, isinstance(store, MemoryStore), settings)
    if isinstance(store, LocalStore):
        _check_disk(store, plan.disk_bytes, replaced=True)


def check_room_left(plan: Plan, store: Store, blocks_left: int) -> None:
    """Refuse to continue where the disk may be too small for the blocks that are left.

    Raises:
        OutputError: It may be.
    """
    if isinstance(store, LocalStore) and blocks_left:
        _check_disk(store, plan.disk_bytes * blocks_left // plan.grid.blocks, replaced=False)


def _check_output(plan: Plan, settings: Settings) -> None:
    if settings.max_output is not None and plan.output_bytes > settings.max_output:
        raise SettingError(
            f"the mask has {human(plan.output_bytes)} before compression, above "
            f"max_output={human(settings.max_output)}; allow more, or choose a coarser "
            "resolution with level"
        )


def _check_memory(plan: Plan, in_memory: bool, settings: Settings) -> None:
    there = _memory_bytes()
    limit = there if settings.memory is None else min(settings.memory, there)
    if plan.memory_bytes > limit:
        raise SettingError(
            f"the run needs {human(plan.memory_bytes)} of memory and may use {human(limit)}; "
            "use a smaller tile or batch, fewer workers or devices, or more memory"
        )
    needed = plan.memory_bytes + plan.output_bytes
    if in_memory and needed > limit:
        raise SettingError(
            f"the result and the run need {human(needed)} of memory and may use {human(limit)}; "
            "give out=PATH to write the mask to disk"
        )


def _memory_bytes() -> int:
    """Return the memory that a run can have.

    A plan counts the interpreter and the libraries, which this process holds already.
    """
    return available_bytes() + min(resident_bytes(), BASE_BYTES)


def _check_disk(store: LocalStore, needed: int, *, replaced: bool) -> None:
    root = Path(store.root)
    folder = next(each for each in (root, *root.absolute().parents) if each.exists())
    free = shutil.disk_usage(folder).free
    if needed > free and replaced:
        free += _size_of(root)  # a mask that is there is deleted first
    if needed > free:
        raise OutputError(
            f"{place(store)} may take {human(needed)} of disk{'' if replaced else ' more'}, and "
            f"{human(free)} are free there; make room, or choose another place with out"
        )


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
