"""Run one of the scripts in ``peers/`` in a process of its own, and read the labels it wrote."""

import json
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

SCRIPTS = Path(__file__).parent / "peers"


class NotRunError(Exception):
    """Something could not be installed, or failed."""


def output(
    command: list[Any], cores: set[int] | None = None, limit_bytes: int | None = None
) -> str:
    """Return what a command printed.

    Args:
        command: Program and arguments.
        cores: The only ones it may run on.
        limit_bytes: Address space it may take, so that it fails before the machine does.

    Raises:
        NotRunError: It failed; the text is the last line of its complaint.
    """

    def bound() -> None:
        if cores:
            os.sched_setaffinity(0, cores)
        if limit_bytes:
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))

    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, preexec_fn=bound
    )
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise NotRunError(complaint[-1])
    return done.stdout


def run_script(
    python: Path,
    script: str,
    image: Path,
    network: Path,
    out: Path,
    threads: int,
    *options: str,
    limit_bytes: int | None = None,
) -> dict[str, Any]:
    """Run one script in a fresh process and return what it printed, its labels read."""
    command = [python, SCRIPTS / f"{script}.py", "--image", image, "--network", network]
    command += ["--out", out, "--threads", threads, *options]
    cores = set(sorted(os.sched_getaffinity(0))[:threads])
    found: dict[str, Any] = json.loads(output(command, cores, limit_bytes).splitlines()[-1])
    return found


def labels_of(found: dict[str, Any]) -> NDArray[np.generic]:
    """Return the labels that a script has written."""
    path = Path(found["labels"])
    if path.suffix == ".npy":
        return np.asarray(np.load(path))
    there = zarr.open(path, mode="r")
    array = there[found["array"]] if isinstance(there, zarr.Group) else there
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])
