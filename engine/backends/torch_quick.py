"""Run a Torch module quicker than it runs itself, where that is shown to say the same."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from ...tiler.errors import first_line
from .torch_folding import fold_batch_norms
from .torch_graph import Call, NoGraphError, signature, trace
from .torch_layout import put_channels_last

LIMIT = 5e-6
"""Largest difference from the module, as a share of the largest logit: half the rounding that an
exact mask may have. Sums in another order make up to 3.6e-6 in a U-Net of four poolings; what is
wrong makes a thousand times that."""

_AS_GOOD = 1.5
"""In half precision: how much further from single precision than the module in half precision."""


@dataclass(frozen=True)
class Quick:
    """A quick form of a module that was compared with it."""

    run: Call
    """From tiles of one size to logits."""
    operators: list[str]
    """What it was made of."""
    last: bool
    """Whether its channels come last."""


def quicken(
    module: nn.Module,
    call: Call,
    exactly: Call,
    noise: torch.Tensor,
    others: torch.Tensor,
    *,
    last: bool,
    compiled: bool,
) -> Quick:
    """Return what gives the logits that a module gives, from several threads at once.

    The module is left as it is; its weights are shared but for those that are folded or laid out
    anew.

    Args:
        module: What is run.
        call: Runs it, up to the logits.
        exactly: Runs it in single precision.
        noise: A batch of tiles ``(batch, channel, y, x)``, of the only size that it is for.
        others: Another one to compare the two on.
        last: Whether channels come last in memory, if that passes the check.
        compiled: Whether to compile it.

    Raises:
        NoGraphError: It has no graph, or none that gives the same logits; the text says why.
    """
    graph, wanted = _graph(module, call, noise)
    operators = signature(graph)
    allowed = LIMIT * float(wanted.abs().max())
    if call is not exactly:
        with torch.no_grad():
            allowed += _AS_GOOD * _difference(wanted, exactly(noise))

    def build(graph: GraphModule, last: bool) -> Call:
        fold_batch_norms(graph)
        if last:
            put_channels_last(graph)
        run = _compile(graph, _laid_out(noise, last)) if compiled else graph
        alone = _check(_split(run, len(noise), last), noise, wanted, allowed)
        with torch.no_grad():
            _check(alone, others, call(others), allowed)
            if noise.device.type == "cpu":  # there, one tile at a time is the fastest
                return alone
            try:  # the graph may hold the number of tiles that it was made of
                both = torch.cat([noise, noise.flip(-1)])
                return _check(_split(run, None, last), both, call(both), allowed)
            except NoGraphError:
                return alone

    try:
        return Quick(build(graph, last), operators, last)
    except NoGraphError:
        if not last:
            raise
    return Quick(build(_graph(module, call, noise)[0], last=False), operators, last=False)


def quicken_as_before(
    module: nn.Module, call: Call, images: torch.Tensor, before: Quick
) -> Quick | None:
    """Return the same for another size of tile on a CPU, without running it.

    ``None`` where the module is another graph at this size, of which nothing is shown yet.
    """
    try:
        graph, _ = _graph(module, call, images, only_sizes=True)
    except NoGraphError:
        return None
    if signature(graph) != before.operators:
        return None
    fold_batch_norms(graph)
    if before.last:
        put_channels_last(graph)
    return replace(before, run=_split(graph, len(images), before.last))


def _graph(
    module: nn.Module, call: Call, images: torch.Tensor, *, only_sizes: bool = False
) -> tuple[GraphModule, torch.Tensor]:
    try:
        with torch.no_grad():
            return trace(module, call, images, only_sizes=only_sizes)
    except NoGraphError:
        raise
    except Exception as error:  # the tracer raises what it meets
        raise NoGraphError(f"it cannot be traced ({first_line(error)})") from error


def _compile(graph: GraphModule, images: torch.Tensor) -> Call:
    """Compile a graph without the guards of ``torch.compile``, whose state all threads share."""
    from torch import _inductor

    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own parts, to its own authors
            compiled: Callable[[torch.Tensor], Any] = _inductor.compile(graph, [images])
            found = compiled(images)
    except Exception as error:  # such as no C++ compiler
        raise NoGraphError(f"it cannot be compiled ({first_line(error)})") from error
    if isinstance(found, torch.Tensor):
        return compiled
    return lambda images: compiled(images)[0]


def _laid_out(images: torch.Tensor, last: bool) -> torch.Tensor:
    """Return images in a layout; those of pixels as they are stored have their channels last."""
    layout = torch.channels_last if last else torch.contiguous_format
    # Of one channel any strides will do, and operators choose by them: always the same ones.
    strides = torch.empty(images.shape, device="meta", memory_format=layout).stride()
    return images.contiguous(memory_format=layout).as_strided(images.shape, strides)


def _split(run: Call, size: int | None, last: bool) -> Call:
    """Return what runs a batch in parts of so many tiles, or whole."""

    def run_all(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():  # nothing of it gets into the module
            parts = [
                run(_laid_out(part, last)) for part in torch.split(images, size or len(images))
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

    return run_all


def _check(run: Call, images: torch.Tensor, wanted: torch.Tensor, allowed: float) -> Call:
    try:
        found = run(images)
    except Exception as error:
        raise NoGraphError(f"its graph fails ({first_line(error)})") from error
    if found.shape != wanted.shape:
        raise NoGraphError("its graph gives another shape")
    worst = _difference(found, wanted)
    if not worst <= allowed:  # also where it is no number
        share = worst / float(wanted.abs().max())
        raise NoGraphError(f"its graph differs by {share:.1g} of the largest logit")
    return run


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).abs().max())
