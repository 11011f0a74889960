"""`tile-infer demo`: the main job on a slide made up for it."""

from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from ..engine.conduct import Conduct
from ..engine.measures import confusion_of, counts_of
from ..engine.settings import Settings
from ..engine.sources import open_source
from ..tiler.errors import OutputError, SettingError
from .demo_picture import demo_picture
from .preview import write_png
from .segment import segment_one
from .summary import columns
from .terminal import Terminal

SLIDE_PX = (4096, 4096)
"""Height and width of the slide."""

DEMO_FOLDER = Path("demo")


def demo(
    folder: Path = DEMO_FOLDER,
    /,
    *,
    overwrite: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Make a synthetic tissue slide, segment its nuclei and compare with the truth.

    Args:
        folder: Where slide, truth, mask and picture go [default: demo].
        overwrite: Make all of them again.
        terminal: Where to print.
    """
    slide, truth_file = folder / "tissue.tif", folder / "tissue_truth.tif"
    if folder.is_file():
        raise SettingError(
            f"{folder} is a file, and demo takes the folder for a slide of its own; to segment "
            f"the file, use tile-infer {folder} --model MODEL"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be created ({error.strerror})") from error
    truth = _slide_and_truth(slide, truth_file, overwrite, terminal)
    network = resources.files("tile_infer.engine.networks") / "demo.onnx"
    with resources.as_file(network) as model:
        mask, conduct = folder / "tissue.demo.zarr", Conduct(overwrite=overwrite)
        done = segment_one(slide, model, mask, Settings(), conduct, terminal)
    labels = np.asarray(done.mask[:])
    with closing(open_source(slide)) as source:
        write_png(folder / "demo.png", demo_picture(source, done.group, labels))
    dice = counts_of(confusion_of(labels, truth, 2), 1).dice
    facts = [("Dice", f"{dice:.3f} against the truth"), ("picture", str(folder / "demo.png"))]
    for line in columns(facts):
        terminal.print(line)
    return 0


def _slide_and_truth(
    slide: Path, truth_file: Path, overwrite: bool, terminal: Terminal
) -> NDArray[np.uint8]:
    """Return the truth of the slide; make both unless an earlier demo did."""
    import tifffile

    from ..engine.networks.tissue import write_slide

    if slide.exists() and truth_file.exists() and not overwrite:
        found: NDArray[np.uint8] = tifffile.imread(truth_file)
        return found
    terminal.note(f"making a slide of {SLIDE_PX[0]} x {SLIDE_PX[1]} px: {slide}")
    # The slide appears last and whole: with it, the truth is there as well.
    unfinished = slide.with_suffix(".partial.tif")
    truth = write_slide(unfinished, SLIDE_PX)
    tifffile.imwrite(
        truth_file, truth, compression="deflate", tile=(256, 256), photometric="minisblack"
    )
    unfinished.replace(slide)
    return truth
