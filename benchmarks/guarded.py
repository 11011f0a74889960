"""Run commands in forked children that may crash, hang or take memory without harm to others.

The parent has imported all that a command needs and holds no thread, session or open file, so a
child starts within milliseconds and dies alone.
"""

import contextlib
import faulthandler
import json
import os
import re
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tile_infer.cli import main as program
from tile_infer.cli.failure import Failure, explain
from tile_infer.tiler.errors import TileInferError

HUNG_SECONDS = 20.0
MOST_RESIDENT_BYTES = 2 << 30
FREE_BYTES = 1 << 30
"""What the program is told to be free: it refuses by itself what needs more."""
MOST_ADDRESSES_BYTES = 64 << 30
"""Only what could not be real any more; what is resident is watched."""
_WATCH_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command."""

    kind: str
    """``done``, ``refused`` by one clear line, or what went wrong: ``unclear`` (other lines, or an
    exit code other than 1 and 2), ``internal`` (an error that is not raised on purpose),
    ``crashed``, ``hung``, ``memory``."""
    text: str = ""
    seconds: float = 0.0
    resident_bytes: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether this must not happen, whatever the file."""
        return self.kind not in ("done", "refused")


class _Child(NamedTuple):
    number: int
    pid: int
    pipe: int
    said: Path
    begun: float


def run_all(
    commands: Iterable[Callable[[], list[str]]],
    scratch: Path,
    at_once: int = 2,
    more: Callable[[str, list[str]], list[str]] = lambda said, line: [],
) -> Iterator[tuple[int, Outcome]]:
    """Run commands, each in a child of its own; yield their numbers and outcomes as they end.

    Args:
        commands: Called in the parent just before the child starts; return the command line.
        scratch: A folder for what they print.
        at_once: Children at a time.
        more: What to add to a command line that was refused with these words, nothing to leave it.
    """
    waiting = enumerate(commands)
    running: list[_Child] = []
    left = True
    while left or running:
        while left and len(running) < at_once:
            try:
                number, make = next(waiting)
            except StopIteration:
                left = False
                break
            running.append(_start(number, make(), scratch, more))
        select.select([child.pipe for child in running], [], [], _WATCH_SECONDS)
        for child in list(running):
            outcome = _watched(child)
            if outcome is not None:
                running.remove(child)
                child.said.unlink(missing_ok=True)
                yield child.number, outcome


def _start(
    number: int, line: list[str], scratch: Path, more: Callable[[str, list[str]], list[str]]
) -> _Child:
    said = scratch / f"said-{number}.txt"
    reading, writing = os.pipe()
    begun = time.perf_counter()
    pid = os.fork()
    if pid:
        os.close(writing)
        return _Child(number, pid, reading, said, begun)
    try:
        os.close(reading)
        _in_child(line, said, writing, more)
    finally:
        os._exit(70)  # not reached


def _in_child(
    line: list[str], said: Path, pipe: int, more: Callable[[str, list[str]], list[str]]
) -> None:
    file = os.open(said, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES_BYTES, MOST_ADDRESSES_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (int(4 * HUNG_SECONDS),) * 2)
    errors: list[str] = []

    def recorded(error: Exception | SystemExit) -> Failure:
        if not isinstance(error, TileInferError):
            errors.append("".join(traceback.format_exception(error))[-3000:])
        return explain(error)

    for name, module in list(sys.modules.items()):
        if name.startswith("tile_infer.") and hasattr(module, "available_bytes"):
            module.available_bytes = lambda *_: FREE_BYTES  # type: ignore[attr-defined]
    program.explain = recorded  # type: ignore[attr-defined]
    while True:
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        code = program.main(line)
        sys.stdout.flush()
        sys.stderr.flush()
        text = said.read_text(errors="replace")
        added = more(text, line) if code else []
        if not added or errors:
            break
        line = [*line, *added]
    found = {"code": code, "text": text, "errors": errors, "resident": _peak_bytes("self")}
    os.write(pipe, json.dumps(found).encode()[:60_000])  # a pipe holds 64 KiB
    os.kill(os.getpid(), signal.SIGKILL)  # sessions of libraries take their time to end


def _watched(child: _Child) -> Outcome | None:
    """Return what became of a child, ``None`` while it runs well."""
    seconds = time.perf_counter() - child.begun
    resident = _peak_bytes(str(child.pid))
    ended = bool(select.select([child.pipe], [], [], 0)[0])
    kind = ""
    if resident > MOST_RESIDENT_BYTES:
        kind = "memory"
    elif seconds > HUNG_SECONDS:
        kind = "hung"
    if not ended and not kind:
        return None
    if kind and not ended:  # say where it is
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGABRT)
            time.sleep(0.2)
            os.kill(child.pid, signal.SIGKILL)
    answer = os.read(child.pipe, 1 << 16) if ended else b""
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    said = child.said.read_text(errors="replace") if child.said.exists() else ""
    if kind or not answer:
        return Outcome(kind or "crashed", f"status {status}: {_place(said)}", seconds, resident)
    found: dict[str, Any] = json.loads(answer)
    kind, text = _judged(found)
    resident = max(resident, found["resident"])
    if resident > MOST_RESIDENT_BYTES:  # for less time than lies between two looks
        kind = "memory"
    return Outcome(kind, text, seconds, resident)


def _place(said: str) -> str:
    """Return the innermost calls of this package and of codecs, without the threads' machinery."""
    calls = re.findall(r'File "[^"]*/([^/"]+)", line (\d+) in (\w+)', said)
    kept = [f"{f}:{n} {name}" for f, n, name in calls if f not in ("threading.py", "thread.py")]
    return " < ".join([said.partition("\n")[0], *kept[:12]])


def _judged(found: dict[str, Any]) -> tuple[str, str]:
    lines = [line for line in found["text"].splitlines() if not line.startswith("warning: ")]
    if found["errors"]:
        return "internal", "\n".join([*lines, *found["errors"]])
    if found["code"] == 0 and not lines:
        return "done", ""
    clear = found["code"] in (1, 2) and len(lines) == 1 and lines[0].startswith("error: ")
    clear = clear and "internal error" not in lines[0] and "Traceback" not in lines[0]
    return ("refused" if clear else "unclear"), "\n".join(lines)


def _peak_bytes(process: str) -> int:
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = text.partition("VmHWM:")[2].split(None, 1)
    return int(found[0]) * 1024 if found else 0
