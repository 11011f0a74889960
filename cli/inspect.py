"""`tile-infer inspect`: what a network's geometry is."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from ..engine.backends import open_network
from ..engine.contradictions import check_declared
from ..engine.inspection import inspect as measure
from ..engine.plan import network_summary
from ..engine.recipe import class_names
from ..engine.settings import Settings
from ..tiler.errors import ModelError, SettingError
from .options import integers_of
from .summary import network_lines, network_table
from .terminal import Terminal


def _count(_: Any, tokens: Sequence[Token]) -> int:
    """Return a number of channels, that of a list as the other commands take it too."""
    numbers = integers_of(tokens[0].value)
    return numbers[0] if len(numbers) == 1 else len(numbers)


def inspect(
    model: Path,
    /,
    *,
    json: bool = False,
    head: Annotated[str | None, Parameter(metavar="NAME")] = None,
    tolerance: Annotated[float | None, Parameter(metavar="X")] = None,
    channels: Annotated[int | None, Parameter(converter=_count, n_tokens=1, metavar="N")] = None,
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
        channels: How many input channels there are, for a network that does not say; a list such as
            0,1,2 is counted.
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
    notes: list[str] = []
    try:  # what was measured is wanted all the same
        class_names(facts, probe)
        notes = check_declared(facts, probe)
    except ModelError as error:
        terminal.warning(str(error))
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
