"""`tile-infer export`: one of the papers' networks as an ONNX file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, Token

from ..engine.backends.metadata import Metadata
from ..engine.networks.checkpoint import load_checkpoint
from ..engine.networks.export import export_onnx
from ..engine.networks.registry import NETWORKS, build, options_of
from ..tiler.errors import OutputError, SettingError, first_line
from .options import tile_of
from .summary import columns
from .terminal import Terminal

if TYPE_CHECKING:
    from ..engine.networks.network import SegmentationNetwork


def _tile(_: Any, tokens: Sequence[Token]) -> tuple[int, int]:
    return tile_of(tokens[0].value)


_TILE = Parameter(converter=_tile, n_tokens=1, metavar="HxW")


def export(
    network: str,
    /,
    *,
    out: Annotated[Path, Parameter(metavar="FILE.onnx")],
    prune: Annotated[Literal["L1", "L2", "L3", "L4"] | None, Parameter(show_choices=False)] = None,
    tile: Annotated[tuple[int, int] | None, _TILE] = None,
    width: Annotated[int | None, Parameter(metavar="N")] = None,
    channels: Annotated[int | None, Parameter(metavar="N")] = None,
    classes: Annotated[str | None, Parameter(metavar="NAME,NAME,...")] = None,
    normalize: Annotated[
        Literal["none", "unit", "zscore", "percentile", "imagenet"] | None, Parameter()
    ] = None,
    option: Annotated[tuple[str, ...], Parameter(metavar="KEY=VALUE")] = (),
    overwrite: bool = False,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Write a network as ONNX, for any tile size or for one.

    Args:
        network: A checkpoint that tile-infer train wrote; or, with random weights, unet, unet_wide,
            unetpp, unetp, unete, fcn32s, fcn16s or fcn8s.
        out: The file.
        prune: L1, L2, L3 or L4: keep one head of unetpp, unetp or unete, and the nodes that it
            needs [default: all, and the mean of their logits].
        tile: Height and width in pixels, or one number for both: the only tile the file will take
            [default: any that the network takes].
        width: Channels of the first level, for a network without a checkpoint [default: the
            paper's].
        channels: Channels of the image, for a network without a checkpoint.
        classes: Names of the classes, the background included [default: what the checkpoint says].
        normalize: How pixels are scaled [default: what the checkpoint says].
        option: What else the network takes, e.g. padding=same, for a network without a checkpoint;
            may be given several times.
        overwrite: Replace the file.
        terminal: Where to print.
    """
    _check_out(out, overwrite)
    named = None if classes is None else tuple(classes.split(","))
    given = {"width": width, "in_channels": channels}
    said = {key: value for key, value in given.items() if value is not None}
    if network in NETWORKS and not Path(network).is_file():
        said |= options_of(network, option)
        if named is not None:
            said.setdefault("classes", len(named))
        module, metadata = build(network, **said), Metadata()
        doubt = f"{network} has random weights; train it before it finds anything"
    else:
        module, metadata = _trained(network, bool(said or option))
        doubt = ""
    if prune is not None:
        module = module.pruned(int(prune[1:]))
    stated = metadata.stated()
    if named is not None:
        stated["classes"] = named
    if normalize is not None:
        stated = {key: stated[key] for key in stated if key not in ("mean", "std", "percentiles")}
        stated["normalize"] = normalize
    write_onnx(module, out, tile, stated)
    if doubt:
        terminal.warning(doubt)
    for line in columns(_facts(module, out, tile)):
        terminal.print(line)
    return 0


def _check_out(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() != ".onnx":
        raise SettingError(f"out={out} is no ONNX file; name it {out.with_suffix('.onnx').name}")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} is there already; use overwrite to replace it")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"the folder of {out} does not exist; choose another place with out")


def _trained(path: str, changed: bool) -> "tuple[SegmentationNetwork, Metadata]":
    if not Path(path).exists():
        raise SettingError(
            f"{path} is neither a file nor a network; use one of {', '.join(NETWORKS)}"
        )
    if changed:
        raise SettingError(
            f"{path} says itself how its network is built; leave out width, channels and option"
        )
    checkpoint = load_checkpoint(path)
    return checkpoint.build(), checkpoint.metadata


def write_onnx(
    module: "SegmentationNetwork", out: Path, size: tuple[int, int] | None, stated: dict[str, Any]
) -> None:
    """Write a network; a file of that name stays whole until the new one is complete.

    Args:
        module: The network.
        out: The file.
        size: The only height and width it will take; free where ``None``.
        stated: What the file says of itself, as keys of ``Metadata``.

    Raises:
        OutputError: It cannot be written.
    """
    partial = out.with_name(f"{out.name}.partial")
    try:
        export_onnx(module, partial, in_channels=module.in_channels, size=size, **stated)
        os.replace(partial, out)  # noqa: PTH105 - one step, on every system
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {first_line(error)}") from error
    finally:
        partial.unlink(missing_ok=True)


def _facts(
    module: "SegmentationNetwork", out: Path, tile: tuple[int, int] | None
) -> list[tuple[str, str]]:
    sizes = f"{module.smallest} + {module.period} k px"
    if tile is not None:
        sizes = f"{tile[0]} x {tile[1]} px only"
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return [
        ("file", str(out)),
        ("parameters", f"{parameters:,}"),
        ("sizes", sizes),
        ("margin", f"{module.margin} px"),
    ]
