"""The options by which several processes share a run."""

import json
import logging
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from ..engine.backends.device import cpu_cores
from ..engine.crew import Crew
from ..engine.part import Part
from ..engine.plan import Plan
from ..engine.predict import THREADS
from ..engine.shares import Share, share_of_part, share_of_workers
from ..tiler.errors import SettingError, TileInferError, first_line
from .terminal import Terminal

if TYPE_CHECKING:
    from ..engine.cluster import Cluster

_GROUP = Group("Several processes", sort_key=6)

_LOCAL = re.compile(r"local(?::(\d{1,4}))?")


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """With which other processes a run is shared."""

    part: Annotated[str | None, Parameter(metavar="I/N")] = None
    """Compute one of n parts of the mask, 0/n to n-1/n, which may run at the same time on one file
    system; tile-infer finish completes the mask."""
    dask: Annotated[str | None, Parameter(metavar="ADDRESS|local:N")] = None
    """Compute the blocks on the Dask cluster with this scheduler, such as tcp://host:8786 or the
    file that it wrote; or on one of N processes that is started here (local: one per core)."""

    def own_part(self) -> Part | None:
        """Return the part to compute.

        Raises:
            SettingError: There is no such part, or a cluster is to share the blocks out as well.
        """
        if self.part is not None and self.dask is not None:
            raise SettingError("part and dask contradict: each shares out the blocks; give one")
        return None if self.part is None else Part.of(self.part)

    @contextmanager
    def crew(self, terminal: Terminal) -> Iterator[Crew]:
        """Connect to the cluster, or start it, for as long as it is needed."""
        if self.dask is None:
            yield THREADS
            return
        with _opened_cluster(self.dask, terminal) as cluster:
            terminal.note(f"Dask's dashboard: {cluster.client.dashboard_link}")
            yield cluster

    def share(self, plan: Plan, terminal: Terminal) -> Share | None:
        """Return what a plan's run has for each of the processes; ``None`` where it is alone."""
        part = self.own_part()
        if part is not None:
            return share_of_part(plan, part)
        workers = self.dask and _local_workers(self.dask)
        if workers:
            return share_of_workers(plan, [1] * workers)
        with self.crew(terminal) as crew:
            return crew.share(plan)


ALONE = Sharing()


def _local_workers(text: str) -> int | None:
    """Return how many workers ``local`` or ``local:N`` asks for; ``None`` for an address."""
    found = _LOCAL.fullmatch(text)
    if not found:
        return None
    count = int(found[1] or cpu_cores())
    if not count:
        raise SettingError(f"dask={text} asks for no worker; use local:1 or more")
    return count


@contextmanager
def _opened_cluster(text: str, terminal: Terminal) -> Iterator["Cluster"]:
    """Open what the option names.

    Raises:
        SettingError: Dask's scheduler is not installed, or the text asks for no worker.
        TileInferError: No scheduler answers there.
    """
    workers = _local_workers(text)
    try:
        import distributed
    except ImportError as error:
        raise SettingError(
            f"dask={text} needs Dask's scheduler; install it: pip install 'tile-infer[dask]'"
        ) from error
    from ..engine.cluster import Cluster
    from ..engine.local_cluster import CONNECT_SECONDS, local_cluster

    with ExitStack() as opened:
        try:
            if workers is not None:
                log_level = logging.WARNING if terminal.verbose else logging.CRITICAL
                with _interrupts_left_to_us():
                    client = opened.enter_context(local_cluster(workers, log_level))
            else:
                if text.endswith(".json"):
                    text = json.loads(Path(text).read_text())["address"]
                client = opened.enter_context(distributed.Client(text, timeout=CONNECT_SECONDS))
        except (OSError, ValueError, LookupError) as error:
            raise TileInferError(
                f"no Dask scheduler answers at {text} ({first_line(error)}); use local, local:N, "
                "tcp://HOST:8786, or the file that the scheduler wrote"
            ) from error
        yield Cluster(client, grows=workers is None)


@contextmanager
def _interrupts_left_to_us() -> Iterator[None]:
    """Start processes that a Ctrl-C, which reaches all of a terminal, does not end.

    They finish their blocks, and are ended with the run.
    """
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
