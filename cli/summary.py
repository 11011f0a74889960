"""What a user reads of a report, a plan and a network."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from ..engine.backends.device import device_text
from ..engine.memory import human
from ..engine.part import Part
from ..engine.plan import Plan
from ..engine.shares import Share

_VERDICTS = {
    "bounded": "can be tiled exactly",
    "does_not_fit": "sees further than its tile reaches: tiles are blended",
    "unbounded": "every pixel of a tile influences every other: tiles are blended",
    "position_dependent": "depends on the place in the tile: tiles are blended",
}

# Unit as OME spells it: the sign, and the next larger unit with its size in this one.
_UNITS = {
    "nanometer": ("nm", "um", 1e3),
    "micrometer": ("um", "mm", 1e3),
    "millimeter": ("mm", "cm", 1e1),
    "meter": ("m", "km", 1e3),
}


def run_lines(report: dict[str, Any], plan: Plan) -> list[str]:
    """Return what to say of a finished mask."""
    height, width = report["shape"]
    head, speed = report["mask"], report["megapixels_per_second"]
    if report["blocks_run"]:
        time = f"{report['seconds']:.1f} s, {speed:.2f} MPix/s"
    else:
        time = "already complete"
    made = "exact" if report["precision"] == "fp32" else f"exact in {report['precision']}"
    if len(plan.turns) > 1:
        made += f", mean of {len(plan.turns)} turned passes"
    made += f", {plan.redundancy:.2f} x the work of one whole pass"
    if plan.blend:
        made = (
            f"blended ({plan.blend}): depends on the tile's size; "
            f"{plan.redundancy:.1f} x the work of one whole pass"
        )
    elif not plan.exact:
        made = "not certified to be exact"
    facts = {
        "size": f"{height} x {width} px (height x width)",
        "time": time,
        "network": f"{plan.network.name}, {report['backend']} on {report['device']}, "
        f"{report['precision']}",
        "mask": made,
    }
    if report["certificate"]:
        facts["verified"] = certificate_text(report["certificate"])
    return [head, *columns([*facts.items(), *_shares(report)])]


def part_lines(part: Part, report: dict[str, Any], plan: Plan) -> list[str]:
    """Return what to say of a finished part of a mask."""
    run, mine = report["blocks_run"], len(part.blocks(plan))
    facts = {
        "part": f"{part}: {mine} of {plan.grid.blocks} blocks",
        "time": f"{report['seconds']:.1f} s" if run else "already complete",
        "then": f"tile-infer finish {report['mask']}, when all {part.count} parts are done",
    }
    return [report["mask"], *columns(facts.items())]


def certificate_text(certificate: dict[str, Any]) -> str:
    """Return in a line what came of computing parts of a mask again."""
    differing, largest = certificate["labels_differing"], certificate["largest_score"]
    text = f"{differing} of {certificate['pixels']} px have another label in other tiles"
    if differing and certificate["ties_alone"]:
        text += ", by rounding alone"
    if certificate["largest_difference"] is not None:
        text += (
            f"; {certificate['scores']} by {certificate['largest_difference']:.1g} of {largest:.3g}"
        )
    return text


def share_text(share: Share) -> str:
    """Return what each of several workers has to do."""
    several = {"process": "processes", "device": "devices"}[share.kind]
    workers = f"{share.workers} {share.kind if share.workers == 1 else several}"
    return f"{workers}, up to {share.blocks} blocks and {human(share.memory_bytes)} of memory each"


def _shares(report: dict[str, Any]) -> list[tuple[str, str]]:
    unit = (report["area_unit"] or "").removesuffix(" squared")
    shares = []
    for entry in report["classes"]:
        text = f"{100 * entry['share']:.2f} %"
        if entry["area"] is not None:
            text += f"  {area_text(entry['area'], unit)}"
        shares.append((entry["name"], text))
    if report["nodata"]["pixels"]:
        share = 100 * report["nodata"]["share"]
        shares.append(("nodata", f"{share:.2f} % of the image; the classes are shares of the rest"))
    unread, not_finite = report["unread"], report["not_finite"]
    if unread["places"]:
        count = len(unread["places"])
        text = f"{unread['pixels']} px not computed: {count} places of the image cannot be decoded"
        shares.append(("unread", f"{text} (--report lists them)"))
    if not_finite["pixels"]:
        text = f"{not_finite['pixels']} px in {len(not_finite['blocks'])} blocks"
        shares.append(("NaN", f"{text}: not computed"))
    if report["changed"]:
        count = sum(len(each["blocks"]) for each in report["changed"])
        text = f"ran out: {count} blocks in smaller tiles or batches"
        shares.append(("memory", f"{text} (--report lists them)"))
    return shares


def area_text(area: float, unit: str) -> str:
    """Return an area in a unit that suits its size.

    >>> area_text(2_500_000, "micrometer")
    '2.5 mm2'
    >>> area_text(2_500, "micrometer")
    '2500 um2'
    """
    sign, larger, factor = _UNITS.get(unit, (unit, "", 0.0))
    if factor and area >= 0.01 * factor**2:
        sign, area = larger, area / factor**2
    number = f"{area:.0f}" if area >= 1000 else f"{area:.4g}"
    return (
        f"{number} {sign}2" if sign in {"nm", "um", "mm", "cm", "m", "km"} else f"{number} {sign}^2"
    )


def plan_lines(plan: Plan, share: Share | None = None) -> list[str]:
    """Return what to say of a plan, and of a process's share of its run."""
    grid = plan.grid
    pixel = plan.image.levels[plan.level]
    facts = {
        "image": f"{plan.image.name}, {_size(grid.image_shape)} px, {plan.image.channels} x "
        f"{plan.image.dtype} ({plan.image.axes})",
        "level": f"{plan.level} of {len(plan.image.levels)}"
        + (f", {_size(pixel.pixel_size)} {plan.image.unit or ''}/px" if pixel.pixel_size else ""),
        "channels": ", ".join(map(str, plan.channels)),
        **({} if plan.nodata is None else {"nodata": f"{plan.nodata:g}"}),
        "network": f"{plan.network.name}, {plan.execution.backend} on {device_text(plan.devices)}, "
        f"{plan.execution.precision}",
        "mask": f"{_size(grid.shape)} px, "
        + ("exact" if plan.exact else "blended" if plan.blend else "not certified"),
        "tile": f"{_size(grid.tile)} px, for {_size(grid.core)} px of the mask",
        "tiles": f"{grid.tiles}, {plan.batch} per run",
        "block": f"{_size(grid.block)} px",
        "blocks": f"{grid.blocks}, {plan.workers} at the same time"
        + (" on each device" if len(plan.devices) > 1 else ""),
        "chunk": f"{_size(grid.chunk)} px",
        "work": f"{plan.redundancy:.2f} x that of one whole pass",
        "memory": f"{human(plan.memory_bytes)} at most",
        **({} if share is None else {"share": share_text(share)}),
        "output": f"{human(plan.output_bytes)} before compression",
        "disk": f"{human(plan.disk_bytes)} at most",
    }
    return columns(facts.items())


def network_lines(network: dict[str, Any]) -> list[str]:
    """Return what to say of a network, besides its sizes."""
    batch, channels, height, width = ("any" if n is None else n for n in network["input"])
    facts = {
        "network": f"{network['name']} ({network['backend']})",
        "verdict": f"{network['verdict']}: {_VERDICTS[network['verdict']]}",
        "input": f"{batch} x {channels} x {height} x {width} (batch x channel x height x width)",
        "classes": ", ".join(network["class_names"]) or _classes(network["output"][1]),
        "output name": network["head"],
    }
    if network["ends_in"] != "none":
        facts["output name"] += f", ends in {network['ends_in']}"
    facts |= _said(network)
    if not network["bounded"]:
        facts["disagreement"] = (
            f"{network['disagreement']:.2g} of the largest logit, in the middle of two tiles"
        )
    if network["tile_dependent"]:
        name = "no effect of" if network["bounded"] else "because of"
        facts[name] = ", ".join(network["tile_dependent"])
    return columns(facts.items())


def _classes(channels: int) -> str:
    return str(channels) if channels > 1 else "2 (one channel, above and below a threshold)"


def _said(network: dict[str, Any]) -> dict[str, str]:
    """Return what a network's metadata says, and where it says so."""
    origins = network["origins"]

    def told(name: str, text: str) -> str:
        return f"{text} (as {origins[name]} says)"

    facts = {}
    if "class_names" in origins:
        facts["classes"] = told("class_names", ", ".join(network["class_names"]))
    if "normalize" in origins:
        limits = "".join(f" {limit:g}" for limit in network["percentiles"] or ())
        facts["normalize"] = told("normalize", network["normalize"] + limits)
    if "mean" in origins:
        facts["normalize"] = told("mean", f"mean {network['mean']}, std {network['std']}")
    if "preprocessing" in origins:
        facts["normalize"] = told("preprocessing", _steps(network["preprocessing"]))
    if "activation" in origins:
        facts["activation"] = told("activation", network["activation"])
    if "threshold" in origins:
        facts["threshold"] = told("threshold", f"{network['threshold']:g}")
    if "pixel_size" in origins:
        height, width = network["pixel_size"]
        facts["pixel size"] = told("pixel_size", f"{height:g} x {width:g} um")
    return facts


def _steps(steps: dict[str, Any]) -> str:
    """Return a pre-processing in a few words."""
    if steps["unsupported"]:
        return f"{steps['unsupported']}, which is not supported"
    words = [steps["statistic"]]
    if steps["statistic"] == "percentile":
        words.append("{:g} {:g}".format(*steps["percentiles"]))
    if steps["joint"]:
        words.append("of all channels together")
    if set(steps["gain"]) != {1.0} or any(steps["shift"]):
        words.append(f"times {list(steps['gain'])} plus {list(steps['shift'])}")
    if any(limit is not None for limit in steps["clip"]):
        words.append(f"clipped to {list(steps['clip'])}")
    return ", ".join(words)


def network_table(network: dict[str, Any]) -> Table:
    """Return a network's sizes in pixels."""
    table = Table("px", "height", "width", box=None, header_style="bold", pad_edge=False)
    rows: dict[str, tuple[list[int], list[int] | None]] = {
        "tile" if not network["free_size"] else "smallest tile": (network["tile"], None),
        "step": (network["step"], None),
        "period": (network["period"], None),
        "output px": (network["output"][2:], None),
        "margin": (network["margin"]["before"], network["margin"]["after"]),
        "halo": (network["halo"]["before"], network["halo"]["after"]),
    }
    if not network["free_size"]:
        del rows["step"]
    for name, (before, after) in rows.items():
        cells = [f"{n:g}" for n in before]
        if after is not None:
            cells = [f"{a:g} + {b:g}" for a, b in zip(before, after, strict=True)]
        if not network["bounded"] and name in ("period", "margin", "halo"):
            cells = ["-", "-"]  # such tiles are blended, whatever these are
        table.add_row(name, *cells)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _size(size: tuple[float, float]) -> str:
    return f"{size[0]:g} x {size[1]:g}" if isinstance(size[0], float) else f"{size[0]} x {size[1]}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of as many cells each as indented lines, the cells of a column below each other.

    >>> table([["a.tif", "9 px", "x"], ["long.tif", "10 px", "y"]])
    ['  a.tif     9 px   x', '  long.tif  10 px  y']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def columns(facts: Iterable[tuple[str, str]]) -> list[str]:
    """Return names and values as indented lines, the values below each other."""
    facts = list(facts)
    width = max([10, *(len(name) for name, _ in facts)])
    return [f"  {name:<{width}}  {value}" for name, value in facts]
