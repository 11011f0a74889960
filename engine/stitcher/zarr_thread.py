"""The thread that does all of zarr's reading and writing: nothing ends it."""

import asyncio
import threading
from contextlib import suppress

from zarr.core import sync as zarr_sync

SETTLE_SECONDS = 5.0
"""For what is being written to a folder, where a run ends early."""

_SETTLING = "settling"


def start_zarr() -> None:
    """Start zarr's thread unless it runs.

    zarr starts it as well, but whoever calls zarr would wait for ever if it could not be started
    once, or was ended: by a ``SystemExit`` of a codec or a store, which stops asyncio's loops.

    Raises:
        RuntimeError: No thread can be started.
    """
    with zarr_sync._get_lock():
        thread = zarr_sync.iothread[0]
        if thread is not None and thread.is_alive():
            return
        loop = zarr_sync.loop[0] or asyncio.new_event_loop()
        thread = threading.Thread(target=_run, args=(loop,), name="zarr_io", daemon=True)
        try:
            thread.start()
        except BaseException:
            if loop is not zarr_sync.loop[0]:
                loop.close()
            raise
        zarr_sync.loop[0], zarr_sync.iothread[0] = loop, thread


def _run(loop: asyncio.AbstractEventLoop) -> None:
    while not loop.is_closed():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):  # handed on to who waits for the result as well
            continue
        return


def settle_zarr(patience_seconds: float = SETTLE_SECONDS) -> None:
    """Wait until zarr has done what is under way, but not for ever.

    Where one chunk of several fails, zarr raises at once, and goes on writing the others.
    """

    async def settle() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name(_SETTLING)  # two of these must not wait for each other
        others = {each for each in asyncio.all_tasks() if each.get_name() != _SETTLING}
        if others:
            await asyncio.wait(others)

    with suppress(Exception, SystemExit):  # what went wrong first is told
        zarr_sync.sync(settle(), timeout=patience_seconds)
