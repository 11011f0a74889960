"""`tile-infer finish`: the end of a run in parts."""

from typing import Annotated

from cyclopts import Parameter

from ..engine.finish import finish as finish_mask
from .summary import run_lines
from .terminal import Terminal


def finish(
    mask: str,
    /,
    *,
    break_lock: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Complete a mask whose parts have all been computed with --part.

    It checks that every chunk and record is there, and builds the pyramid.

    Args:
        mask: Folder of the mask, or its place at s3:// or gs://.
        break_lock: Take over a mask that a process of another machine holds; it must have ended.
        terminal: Where to print.
    """
    done = finish_mask(mask, break_lock=break_lock)
    for line in run_lines(done.report, done.plan):
        terminal.print(line)
    return 0
