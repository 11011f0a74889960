"""Several images in one command: the next one is begun while the last one ends."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from time import monotonic
from traceback import clear_frames
from typing import NamedTuple

from ..engine.crew import Crew, Threads
from ..engine.pool import result_of
from ..engine.prediction import Prediction
from ..engine.rooms import Rooms
from ..engine.url import Location
from ..tiler.errors import DeviceError, NumericError, OutputError, first_line
from .failure import FAILED, explain
from .overlap import AT_ONCE, Piece, overlapping
from .summary import table
from .terminal import Terminal

log = logging.getLogger(__name__)

_LONGEST_CAUSE = 100
"""Characters in the table."""


class Done(NamedTuple):
    """What the table says of an image that was segmented."""

    shape: tuple[int, int]
    """Height and width of the mask in pixels."""
    seconds: float
    """From its begin to its end; the next one has begun before that."""
    mask: str
    """Where it is."""


def segment_all(
    images: Sequence[Location],
    paths: Sequence[Location | None],
    one: Callable[..., Prediction],
    crew: Crew,
    terminal: Terminal,
) -> int:
    """Segment several images; one that fails does not keep the others from being done.

    While the last blocks of one are computed, the next is opened, planned and read; and while the
    rest of the one is written, the next is computed. What is printed is in the order of the images.

    Args:
        images: The images.
        paths: Where the mask of each goes.
        one: Does all that is to be done for an image, given ``image``, ``out``, ``title`` and
            ``crew``.
        crew: Who computes the blocks. A cluster is given one image after the other.
        terminal: Where to print.

    Returns:
        The exit code.

    Raises:
        DeviceError: The device cannot be had, which no other image would change.
    """
    rooms, begun = Rooms(), monotonic()

    def work(number: int, piece: Piece[Done]) -> Done:
        image, since, alone = images[number], monotonic(), piece.first
        own = crew if crew.elsewhere else Threads(rooms, piece.let_next)
        title = f"[{number + 1}/{len(images)}] {image.name}"
        do = partial(one, image, out=paths[number], title=title, crew=own)
        with terminal.keeping(piece.lines), _let_go():
            try:
                done = do()
            except (OutputError, NumericError):
                raise
            except Exception as error:
                if alone:
                    raise
                log.info("%s failed beside another image: %s", image, first_line(error))
            else:
                return _told(done, since)
            # There may have been too little memory beside the image before: what was printed is
            # forgotten, and blocks that were done are kept.
            piece.lines.drop()
            piece.wait()
            return _told(do(), since)

    rows, failed = list[list[str]](), list[str]()
    pixels = 0
    works = [partial(work, number) for number in range(len(images))]
    at_once = 1 if crew.elsewhere else AT_ONCE
    with closing(overlapping(works, rooms.stop, at_once)) as outcomes:
        for image, outcome in zip(images, outcomes, strict=True):
            try:
                done = result_of(outcome)
            except DeviceError:
                raise
            except Exception as error:
                failed.append(str(image))
                text = explain(error).text
                terminal.error(text if str(image) in text else f"{image}: {text}")
                if terminal.verbose:
                    terminal.traceback()
                rows.append([image.name, "failed", "", _cause(text, image)])
            else:
                height, width = done.shape
                pixels += height * width
                size, seconds = f"{height} x {width} px", f"{done.seconds:.1f} s"
                rows.append([image.name, size, seconds, done.mask])
    for line in table(rows):
        terminal.print(line)
    terminal.print(
        f"{len(images) - len(failed)} of {len(images)} images done: {pixels / 1e6:.1f} MPix in "
        f"{monotonic() - begun:.1f} s"
    )
    if failed:
        terminal.error(f"{len(failed)} of {len(images)} images failed: {', '.join(failed)}")
    return FAILED if failed else 0


@contextmanager
def _let_go() -> Iterator[None]:
    """Have a failure hold nothing of where it happened, such as a GPU's memory, until it is told.

    The next image is planned meanwhile.
    """
    try:
        yield
    except Exception as error:
        each: BaseException | None = error
        while each is not None:
            clear_frames(each.__traceback__)
            each = each.__cause__ or each.__context__
        raise


def _told(done: Prediction, since: float) -> Done:
    height, width = done.report["shape"]
    return Done((height, width), monotonic() - since, done.report["mask"])


def _cause(text: str, image: Location) -> str:
    """Return what went wrong in a few words: not of which image, nor how to mend it.

    >>> from pathlib import Path
    >>> _cause("a/b.tif is empty; get a good copy", Path("a/b.tif"))
    'is empty'
    """
    text = text.removeprefix(str(image)).lstrip(": ").partition("; ")[0]
    return text if len(text) <= _LONGEST_CAUSE else f"{text[:_LONGEST_CAUSE]}…"
