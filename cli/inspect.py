"""`tile-infer inspect`: what a network's geometry is."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine.backends import open_network
from ..engine.contradictions import check_declared
from ..engine.inspection import inspect as measure
from ..engine.plan import network_summary
from ..engine.settings import Settings
from ..tiler.errors import ModelError, SettingError
from .summary import network_lines, network_table
from .terminal import Terminal


def inspect(
    model: Path,
    /,
    *,
    json: bool = False,
    head: Annotated[str | None, Parameter(metavar="NAME")] = None,
    tolerance: Annotated[float | None, Parameter(metavar="X")] = None,
    channels: Annotated[int | None, Parameter(metavar="N")] = None,
    trust_model: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Measure a network's tile sizes, margin, period and halo.

    Args:
        model: The network: an ONNX, TorchScript or torch.export file, or a bioimageio.yaml or its
            package.
        json: Print JSON.
        head: Name or index of the network's output, where it has several.
        tolerance: Error of the logits, as a share of the largest, that the halo may leave.
        channels: Input channels, for a network that does not say.
        trust_model: Open a network file that can run code: TorchScript and torch.export.
        terminal: Where to print.
    """
    settings = Settings(head=head, tolerance=tolerance)
    if channels is not None and channels < 1:
        raise SettingError(f"channels={channels} is not possible; use 1 or more")
    with closing(open_network(model, head, trust_model=trust_model)) as network:
        probe = measure(network, settings, channels)
        facts = network.facts  # running it tells some of them
    summary = network_summary(facts, probe)
    for doubt in facts.doubts:
        terminal.warning(doubt)
    try:
        notes = check_declared(facts, probe)
    except ModelError as error:  # what was measured is wanted all the same
        terminal.warning(str(error))
        notes = []
    for note in (*facts.remarks, *notes):
        terminal.note(note)
    if json:
        terminal.json(summary)
        return 0
    for line in network_lines(summary):
        terminal.print(line)
    terminal.print()
    terminal.print(network_table(summary))
    return 0
