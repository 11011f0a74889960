"""A folder of odd TIFFs through the command line: masks whose pixels are right, or clear refusals.

A network that returns its input, with one and with three channels, segments every file; the stored
logits must be, as float32, the pixels that tifffile reads. A refusal may name what to add (a page,
a series, channels); that is added and the command repeated. The same again after every file is cut
to 60 %, where only the pixels of the whole file are right. Commands run inside two worker
processes, as starting Python takes longer than most files; some of them in processes of their own
as well, which must print and exit alike. A file fails if it is wrong, if a command takes more than
20 s, dies, or ends in anything but one line that names the file.
"""

import argparse
import collections
import contextlib
import io
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np
import zarr

from data_folder import DATA
from results_file import save
from returning_network import write_returning_network
from tifffile_pixels import first_plane
from tile_infer.cli.main import main as tile_infer

SLOW_SECONDS, HUNG_SECONDS = 20.0, 120.0
CHANNELS = (1, 3)
KEPT = (100, 60)
"""Percent of each file."""
OWN_PROCESSES = 12
"""Commands that are also run in a process of their own, for each share kept."""
_ADDED = re.compile(r"--(channels) ([0-9,]+)|--(page|series) 0")


@dataclass(frozen=True, slots=True)
class Job:
    """One file for one network."""

    file: Path
    whole: Path
    """The file that it was cut from, or the file itself."""
    channels: int
    network: Path
    out: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file."""

    kind: str
    """``equal``, ``refused``, or what went wrong: ``wrong``, ``unclear``, ``slow``, ``hung``,
    ``traceback``, ``died``."""
    text: str = ""
    seconds: float = 0.0
    added: tuple[str, ...] = ()
    """Options that refusals asked for."""
    code: int = 0
    """Exit code of the last command."""


def sweep(job: Job) -> Outcome:
    """Segment a file and compare."""
    try:
        return _swept(job)
    except Exception:
        return Outcome("traceback", traceback.format_exc())
    finally:
        shutil.rmtree(job.out, ignore_errors=True)


def _swept(job: Job) -> Outcome:
    added: list[str] = []
    longest = 0.0
    while True:
        shutil.rmtree(job.out, ignore_errors=True)
        begun = perf_counter()
        code, said = run_inside(command(job, added))
        longest = max(longest, perf_counter() - begun)
        if longest > SLOW_SECONDS:
            return Outcome("slow", said, longest, tuple(added), code)
        if code == 0:
            problem = difference(job, added)
            return Outcome("wrong" if problem else "equal", problem, longest, tuple(added))
        more = asked_for(said, added)
        if not more:
            break
        added += more
    clear = code == 1 and job.file.name in said and said.count("\n") == 1
    clear = clear and "Traceback" not in said and "internal error" not in said
    return Outcome("refused" if clear else "unclear", said.strip(), longest, tuple(added), code)


def command(job: Job, added: Sequence[str] = ()) -> list[str]:
    """Return the command line without the program's name."""
    line = [str(job.file), "--model", str(job.network), "--out", str(job.out), "--quiet"]
    return [*line, "--normalize", "none", "--output", "logits", "--device", "cpu", *added]


def run_inside(line: list[str]) -> tuple[int, str]:
    """Run a command line in this process; return its exit code and what it said on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = tile_infer(line)
    return code, said.getvalue()


def asked_for(said: str, added: Sequence[str]) -> list[str]:
    """Return the options that a refusal names and that were not tried."""
    for channels, numbers, plane in _ADDED.findall(said.partition("choose")[2]):
        name, value = f"--{channels or plane}", numbers or "0"
        if name not in added:
            return [name, value]
    return []


def difference(job: Job, added: Sequence[str]) -> str:
    """Return in what the stored logits are not what tifffile reads, nothing if they are."""
    found = np.asarray(zarr.open_group(job.out, mode="r")["logits"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = first_plane(job.whole)
    wanted: Any = list(range(job.channels))  # alpha is left out by itself
    if "--channels" in added:
        wanted = [int(n) for n in added[added.index("--channels") + 1].split(",")]
    if expected.shape[2] <= max(wanted):
        return f"tifffile reads {expected.shape[2]} channels, not {max(wanted) + 1}"
    planes = expected[..., wanted].transpose(2, 0, 1).astype(np.float32)
    if planes.shape != found.shape:
        return f"(channel, y, x) is {found.shape}, tifffile's {planes.shape}"
    differing = int(np.count_nonzero(planes != found))
    return f"{differing} of {found.size} values differ" if differing else ""


def _work(pipe: Connection) -> None:
    """Do jobs until there are no more."""
    while (job := pipe.recv()) is not None:
        pipe.send(sweep(job))


class Worker:
    """A process that does jobs, and is replaced when one does not end or kills it."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, other = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def do(self, job: Job) -> Outcome:
        """Return what became of a job."""
        self._pipe.send(job)
        try:
            if self._pipe.poll(HUNG_SECONDS):
                outcome: Outcome = self._pipe.recv()
                return outcome
            kind = "hung"
        except EOFError:
            kind = "died"
        self._process.kill()
        self._process.join()
        text = f"exit code {self._process.exitcode}"
        self._start()
        return Outcome(kind, text)

    def end(self) -> None:
        """Let the process end."""
        self._pipe.send(None)
        self._process.join()


def do_all(jobs: list[Job], workers: int) -> list[Outcome]:
    """Return what became of all jobs, in their order."""
    idle: SimpleQueue[Worker] = SimpleQueue()
    team = [Worker() for _ in range(workers)]
    for worker in team:
        idle.put(worker)

    def one(job: Job) -> Outcome:
        worker = idle.get()
        try:
            return worker.do(job)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(one, jobs))
    for worker in team:
        worker.end()
    return outcomes


def differing_alone(jobs: list[Job], outcomes: list[Outcome]) -> list[str]:
    """Return the files that a process of its own treats otherwise, of some spread over all."""
    places = np.linspace(0, len(jobs) - 1, min(OWN_PROCESSES, len(jobs))).astype(int)
    found = []
    for job, outcome in ((jobs[i], outcomes[i]) for i in places):
        program = "import sys; from tile_infer.cli.main import main; sys.exit(main())"
        line = [sys.executable, "-c", program, *command(job, outcome.added)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=HUNG_SECONDS)
        shutil.rmtree(job.out, ignore_errors=True)
        refused = outcome.kind == "refused"
        if done.returncode != outcome.code or (refused and done.stderr.strip() != outcome.text):
            found.append(f"{job.file.name}: exit code {done.returncode}, {done.stderr.strip()}")
    return found


def summary(folder: Path, jobs: list[Job], outcomes: list[Outcome]) -> dict[str, Any]:
    """Return counts, and the reason of each refusal without paths of this machine."""
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    kinds: dict[Path, set[str]] = collections.defaultdict(set)
    for job, outcome in zip(jobs, outcomes, strict=True):
        name = str(job.whole.relative_to(folder))
        kinds[job.whole].add(outcome.kind)
        text = outcome.text.replace(str(job.file), job.file.name)
        if outcome.kind == "refused":
            refused[name] = text
        elif outcome.kind != "equal":
            failed[f"{name}, {job.channels} channel(s)"] = f"{outcome.kind}: {text}"
    return {
        "files": len(kinds),
        "files_with_equal_masks": sum(found == {"equal"} for found in kinds.values()),
        "files_refused": sum(found == {"refused"} for found in kinds.values()),
        "files_with_both": sum(found == {"equal", "refused"} for found in kinds.values()),
        "commands": dict(collections.Counter(outcome.kind for outcome in outcomes)),
        "with_a_chosen_plane": sum(
            bool({"--page", "--series"} & set(outcome.added)) and outcome.kind == "equal"
            for outcome in outcomes
        ),
        "slowest_seconds": round(max(outcome.seconds for outcome in outcomes), 2),
        "refused": refused,
        "failed": failed,
    }


def main() -> int:
    """Sweep, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DATA / "odd_tiff")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folder: Path = options.folder
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        print(f"no files in {folder}; give the folder of TIFFs to sweep", file=sys.stderr)
        return 1
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        networks = {n: write_returning_network(scratch / f"in{n}.onnx", n) for n in CHANNELS}
        for percent in KEPT:
            begun = perf_counter()
            jobs = []
            for number, whole in enumerate(files):
                file = whole
                if percent < 100:
                    (scratch / f"{number}").mkdir()
                    file = scratch / f"{number}" / whole.name
                    data = whole.read_bytes()
                    file.write_bytes(data[: len(data) * percent // 100])
                for n, network in networks.items():
                    jobs.append(Job(file, whole, n, network, scratch / f"{number}-{n}.zarr"))
            outcomes = do_all(jobs, options.workers)
            part = summary(folder, jobs, outcomes)
            part["differing_in_a_process_of_its_own"] = differing_alone(jobs, outcomes)
            part["seconds"] = round(perf_counter() - begun, 1)
            figures[f"kept_{percent}_percent"] = part
            print(f"{percent} %: { {k: v for k, v in part.items() if k != 'refused'} }", flush=True)
    print(save("odd_files", figures))
    good = all(
        not part["failed"] and not part["differing_in_a_process_of_its_own"]
        for part in figures.values()
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
