"""`tile-infer plan`: how an image would be segmented."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine.limits import check_limits, check_memory_asked
from ..engine.planning import plan_image
from ..tiler.errors import SettingError
from .options import Options
from .segment import NO_OPTIONS
from .sharing import ALONE, Sharing
from .summary import plan_lines
from .terminal import Terminal


def plan(
    image: str,
    /,
    *,
    model: Path,
    json: bool = False,
    sharing: Sharing = ALONE,
    options: Options = NO_OPTIONS,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Show how an image would be segmented, without running it.

    Args:
        image: Image to plan for.
        model: The network: an ONNX file, a bioimageio.yaml or its package, or with --trust-model
            TorchScript or torch.export.
        json: Print JSON.
        sharing: With which other processes.
        options: How to do it.
        terminal: Where to print.
    """
    sharing.own_part()  # what is wrong with it is told before anything is opened
    settings = options.settings()
    made = plan_image(image, model, settings)
    try:
        check_memory_asked(settings)
        check_limits(made, None, settings)
    except SettingError as error:
        terminal.warning(f"the run would be refused: {error}")
    for warning in made.warnings:
        terminal.warning(warning)
    for note in made.notes:
        terminal.note(note)
    share = sharing.share(made, terminal)
    if json:
        terminal.json({**made.summary(), **({} if share is None else {"share": asdict(share)})})
        return 0
    for line in plan_lines(made, share):
        terminal.print(line)
    return 0
