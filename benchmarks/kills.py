"""Runs that are stopped at random moments and resumed, against one that nobody stopped.

A slide of many small blocks is segmented by the command line, each time in a process of its own.
That is killed (SIGKILL) at a random moment and begun again by the same command, until the mask is
done; then the next mask is begun, until there were kills enough. Most are aimed between the first
chunk and the last: when some more are there, half of them at once, while the rest of the block is
being written, half some time later. Others come with the last chunk, or at any time after the start
of a process, most of these before the first chunk and after the last. A few processes are asked to
end instead (SIGTERM, SIGINT) and must say how to continue. The seed draws all that; what a process
is doing at the moment depends on the machine as well.

Every file of a finished mask is compared with that of the run that nobody stopped, and the report
but for what a run spends and does. After each stop, blocks are counted of which something had been
written that is written again: after a kill those in flight at most, after a polite end none. A
process that takes longer than a minute hangs.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from signal import Signals
from time import perf_counter, sleep
from typing import Any

import numpy as np

from memory import write_network, write_textured
from results_file import save

SEED = 20240917
HUNG_SECONDS = 60.0
MOST_FAILURES = 10
"""After so many it is clear."""

PROGRAM = [str(Path(sys.executable).with_name("tile-infer"))]
HEIGHT_PX, BLOCK_PX, TILE_PX = 1600, 1536, 390
"""Tiles of 390 px keep 384, of which 16 make a block: two rows of blocks, the second one cut."""

KILL, ASKED = Signals.SIGKILL, (Signals.SIGTERM, Signals.SIGINT)
EXIT_CODES = {KILL: -KILL, Signals.SIGTERM: 143, Signals.SIGINT: 130}
LAST_WORDS = "finished blocks are kept; the same command continues"

OF_A_RUN = {
    *("mask", "seconds", "megapixels_per_second", "peak_rss_bytes"),
    *("blocks_run", "stages", "counts"),
}
"""What a report tells of the run and not of the mask."""

_WATCH_SECONDS = 0.002


class WrongError(Exception):
    """Something that must not happen."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a process is stopped."""

    chunks: int
    """It has written so many."""
    seconds: float
    """Time after that."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command, and what it gives when nobody stops it."""

    line: list[str]
    """The command line but for where the mask and the report go."""
    mask: Path
    report: dict[str, Any]

    @property
    def blocks(self) -> int:
        """Blocks in all."""
        return int(self.report["plan"]["blocks"])

    @property
    def chunks(self) -> int:
        """Chunks of the mask at full resolution."""
        plan = self.report["plan"]
        return prod(
            -(-side // chunk) for side, chunk in zip(plan["shape"], plan["chunk"], strict=True)
        )

    @property
    def in_flight(self) -> int:
        """Blocks in flight at most."""
        return int(self.report["plan"]["workers"]) + 1


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in an output between two processes."""

    recorded: frozenset[int]
    """Blocks with a record."""
    chunks: int
    """Chunks of the mask at full resolution."""
    written: dict[int, dict[Path, tuple[int, int]]]
    """Files of each block's chunks at full resolution, with inode and time."""
    cut: int
    """Files whose writing was cut short."""


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    stops: dict[Signals, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Where in a run processes were stopped."""
    half_written: dict[Signals, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Blocks with chunks and without a record, after each stop."""
    again: dict[Signals, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Blocks of which the next process wrote something again, after each stop."""
    cut_files: int = 0
    masks: int = 0
    files: int = 0
    bytes_differing: int = 0
    hangs: int = 0
    processes: int = 0
    longest_seconds: float = 0.0
    failed: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """Return the figures, for JSON."""
        return {
            "stops": {
                name.name: {"in_all": places.total(), **places}
                for name, places in sorted(self.stops.items())
            },
            "blocks_half_written_after_a_stop": _spread(self.half_written),
            "blocks_written_again_after_a_stop": _spread(self.again),
            "files_cut_short": self.cut_files,
            "masks_completed": self.masks,
            "files_compared": self.files,
            "bytes_differing": self.bytes_differing,
            "hangs": self.hangs,
            "processes": self.processes,
            "longest_seconds": round(self.longest_seconds, 1),
            "failed": self.failed,
        }


def _spread(found: dict[Signals, list[int]]) -> dict[str, dict[str, int]]:
    return {
        name.name: {"most": max(numbers), "in_all": sum(numbers)}
        for name, numbers in sorted(found.items())
    }


def draw(rng: np.random.Generator, sent: Signals, left: int, chunks: int) -> Moment | None:
    """Return a random moment to send a signal, ``None`` to let a process end.

    Args:
        rng: Draws it.
        sent: The signal.
        left: Chunks that are missing.
        chunks: Chunks in all.
    """
    chance, later = rng.random(), rng.uniform(0, rng.choice([0.02, 0.3]))
    if sent == KILL and chance < (0.1 if 0 < left < chunks else 0.5):
        return Moment(0, rng.uniform(0, 3))
    if left == 0:
        return None
    if sent == KILL and chance > 0.95:
        return Moment(left, later)
    return Moment(int(rng.integers(1, max(2, min(left, chunks // 6)))), later)


def look(mask: Path, plan: dict[str, Any]) -> Found:
    """Return what lies in an output that nobody writes to."""
    records = (mask / "tile_infer/records/c").glob("*/0")
    rows, columns = (b // c for b, c in zip(plan["block"], plan["chunk"], strict=True))
    across = -(-plan["shape"][1] // plan["block"][1])
    chunks, written = 0, defaultdict[int, dict[Path, tuple[int, int]]](dict)
    for array in ("0", "probabilities"):
        for path in (mask / array / "c").rglob("*"):
            if path.is_file() and path.name.isdigit():
                row, column = int(path.parent.name) // rows, int(path.name) // columns
                there = path.stat()
                written[row * across + column][path] = there.st_ino, there.st_mtime_ns
                chunks += array == "0"
    recorded = frozenset(int(path.parent.name) for path in records)
    return Found(recorded, chunks, dict(written), len([*mask.rglob("*.partial")]))


def written_again(before: Found, after: Found) -> set[int]:
    """Return the blocks of which something was there that has been written again, or is gone."""
    return {
        block
        for block, files in before.written.items()
        if any(after.written.get(block, {}).get(path) != there for path, there in files.items())
    }


def differing_bytes(one: Path, other: Path) -> tuple[int, int]:
    """Return how many files two folders have, and the bytes that are not the same in both."""
    files = [(top, path) for top in (one, other) for path in top.rglob("*") if path.is_file()]
    names = {path.relative_to(top) for top, path in files}
    differing = 0
    for name in names:
        if not ((one / name).is_file() and (other / name).is_file()):
            differing += 1
            continue
        a, b = (np.frombuffer((top / name).read_bytes(), np.uint8) for top in (one, other))
        both = min(len(a), len(b))
        differing += int(np.count_nonzero(a[:both] != b[:both])) + max(len(a), len(b)) - both
    return len(names), differing


def run(
    job: Job, mask: Path, moment: Moment | None, sent: Signals, tally: Tally
) -> tuple[int, str]:
    """Run the command, stop it at a moment; return its exit code and what it said.

    Raises:
        WrongError: It takes too long.
    """
    said, begun = mask.with_suffix(".txt"), perf_counter()
    line = [*job.line, "--out", str(mask), "--report", str(mask.with_suffix(".json"))]
    with said.open("w") as file:
        process = subprocess.Popen([*PROGRAM, *line], stdout=file, stderr=file)
    try:
        due = moment is not None and _still_runs_at(process, moment, mask, begun)
        # One that has written all is about to leave, and is not asked to.
        if due and (sent == KILL or _chunks(mask) < job.chunks):
            process.send_signal(sent)
        code = process.wait(max(0, begun + HUNG_SECONDS - perf_counter()))
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.wait()
        tally.hangs += 1
        raise WrongError("a process hung") from error
    tally.processes += 1
    tally.longest_seconds = max(tally.longest_seconds, perf_counter() - begun)
    return code, said.read_text().strip()


def _still_runs_at(
    process: "subprocess.Popen[bytes]", moment: Moment, mask: Path, begun: float
) -> bool:
    """Wait for a moment; say whether the process has not ended before."""
    wanted = _chunks(mask) + moment.chunks
    while moment.chunks and _chunks(mask) < wanted:
        if process.poll() is not None:
            return False
        if perf_counter() > begun + HUNG_SECONDS:
            raise subprocess.TimeoutExpired(process.args, HUNG_SECONDS)
        sleep(_WATCH_SECONDS)
    try:
        process.wait(moment.seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _chunks(mask: Path) -> int:
    """Return how many chunks have begun to be written: probabilities come before labels."""
    return sum(path.name.isdigit() for path in mask.glob("probabilities/c/0/*/*"))


def make_one_mask(
    job: Job, mask: Path, signals: list[Signals], rng: np.random.Generator, tally: Tally
) -> None:
    """Run the command until the mask is done, and send the signals meanwhile, the last one first.

    Those that came in time are taken from the list.

    Raises:
        WrongError: Something that must not happen.
    """
    plan = job.report["plan"]
    before, last = look(mask, plan), None
    while True:
        sent = signals[-1] if signals else KILL
        left = job.chunks - _chunks(mask)
        moment = draw(rng, sent, left, job.chunks) if signals else None
        code, said = run(job, mask, moment, sent, tally)
        after = look(mask, plan)
        again = written_again(before, after)
        if last is not None:
            tally.again[last].append(len(again))
        if len(again) > (job.in_flight if last == KILL else 0):
            raise WrongError(f"{len(again)} blocks were written again")
        if not before.recorded <= after.recorded or again & before.recorded:
            raise WrongError("a block that was recorded was run again")
        if code == 0:
            break
        if not signals or code != EXIT_CODES[sent]:
            raise WrongError(f"exit code {code}: {said[-300:]}")
        if sent != KILL and (LAST_WORDS not in said or "Traceback" in said):
            raise WrongError(f"{sent.name} and no word of how to continue: {said[-300:]}")
        last = signals.pop()
        half = len(after.written.keys() - after.recorded)
        if half > (job.in_flight if last == KILL else 0):
            raise WrongError(f"{half} blocks were half written after {last.name}")
        tally.half_written[last].append(half)
        tally.stops[last][_place(after, job)] += 1
        tally.cut_files += after.cut
        before = after
    report = json.loads(mask.with_suffix(".json").read_text())
    if report["blocks_run"] != job.blocks - len(before.recorded):
        raise WrongError(f"{report['blocks_run']} blocks were run of those that were left")
    if _lasting(report) != _lasting(job.report):
        raise WrongError("the report is another one")
    files, differing = differing_bytes(job.mask, mask)
    tally.masks, tally.files = tally.masks + 1, tally.files + files
    tally.bytes_differing += differing
    if differing:
        raise WrongError(f"{differing} bytes differ")


def _place(found: Found, job: Job) -> str:
    if found.chunks == 0:
        return "before_the_first_chunk"
    return "after_the_last_chunk" if found.chunks == job.chunks else "between"


def _lasting(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key not in OF_A_RUN}


def make_job(folder: Path, columns: int) -> Job:
    """Write the slide and the network, and run the command that nobody stops."""
    slide, network = folder / "slide.tif", folder / "small.onnx"
    write_textured(slide, (HEIGHT_PX, columns * BLOCK_PX - 100))
    write_network(network)
    line = [str(slide), "--model", str(network), "--tile", str(TILE_PX), "--workers", "2"]
    # What would be chosen by what is free or faster at the moment, and make another plan.
    line += ["--device", "cpu", "--backend", "onnx", "--memory", "2GB", "--output", "probabilities"]
    mask = folder / "whole.zarr"
    report = mask.with_suffix(".json")
    told = ["--out", str(mask), "--report", str(report)]
    subprocess.run([*PROGRAM, *line, *told, "--quiet"], check=True)
    return Job(line, mask, json.loads(report.read_text()))


def stop_and_resume(
    job: Job, folder: Path, signals: list[Signals], rng: np.random.Generator
) -> Tally:
    """Make masks until all signals were sent; say each thing that must not happen."""
    tally, number = Tally(), 0
    while signals and len(tally.failed) < MOST_FAILURES:
        mask = folder / f"{number}.zarr"
        try:
            make_one_mask(job, mask, signals, rng, tally)
        except WrongError as error:
            tally.failed.append(f"mask {number}: {error}")
        print(f"mask {number}: {len(signals)} signals left", file=sys.stderr, flush=True)
        shutil.rmtree(mask, ignore_errors=True)
        number += 1
    return tally


def main() -> int:
    """Stop runs, compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--asked", type=int, default=20, help="times each of SIGTERM and SIGINT")
    parser.add_argument("--columns", type=int, default=32, help="half of the slide's blocks")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--result", default="kills", help="name of the file of figures")
    options = parser.parse_args()
    # What a shell runs in its background ignores SIGINT, and so would what that runs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, begun = np.random.default_rng(options.seed), perf_counter()
    signals = [KILL] * options.kills + [each for each in ASKED for _ in range(options.asked)]
    signals = [signals[n] for n in rng.permutation(len(signals))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TILE_INFER_CACHE"] = str(folder / "cache")
        job = make_job(folder, options.columns)
        tally = stop_and_resume(job, folder, signals, rng)
    figures = {
        "seed": options.seed,
        "image_px": job.report["shape"],
        "block_px": job.report["plan"]["block"],
        "blocks": job.blocks,
        "chunks": job.chunks,
        "blocks_in_flight": job.in_flight,
        "hung_seconds": HUNG_SECONDS,
        **tally.counts(),
        "seconds": round(perf_counter() - begun, 1),
    }
    print(json.dumps(figures, indent=1))
    print(save(options.result, figures))
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
