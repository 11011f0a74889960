"""A Dask cluster of processes of this machine."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
import distributed

CONNECT_SECONDS = 15
"""For a scheduler to answer."""

_PATIENCE = {"distributed.deploy.lost-worker-timeout": "365 days"}
"""How long a worker may be away after a loss before Dask gives it up, and starts it no more.

By default that is 15 s: as long as a busy machine needs to start it, or until its next loss.
"""


@contextmanager
def local_cluster(workers: int, log_level: int = logging.CRITICAL) -> Iterator[Any]:
    """Start a cluster and yield its ``distributed.Client``; end it afterwards.

    Args:
        workers: How many processes, each of one thread. The plan bounds their memory.
        log_level: What Dask logs.

    Raises:
        OSError: The scheduler does not answer.
    """
    with (
        dask.config.set(_PATIENCE),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            silence_logs=log_level,
        ) as cluster,
        distributed.Client(cluster, timeout=CONNECT_SECONDS) as client,
    ):
        yield client
