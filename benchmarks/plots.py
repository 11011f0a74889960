"""Draw the README's figures from ``results/*.json``; one whose figures are not there is left out.

Needs ``.[figures]``. Colours are those of Okabe and Ito, which colour-blind readers tell apart.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from redundancy import curves
from results_file import RESULTS
from speed_tables import load, way

BLUE, SKY, ORANGE, GREY, INK = "#0072B2", "#56B4E9", "#D55E00", "#777777", "#222222"
OURS = "tile-infer"
Horizontal = Literal["left", "right"]
Vertical = Literal["top", "center", "bottom"]
WIDTH_IN = 8.0
NEAR_OCTAVES = 0.27
"""Labels closer than that would touch."""


def style() -> None:
    """Set what all figures have in common; text stays text, which keeps the files small."""
    mpl.rcParams.update(
        {
            "font.family": "sans-serif",
            "svg.fonttype": "none",
            "font.size": 10,
            "text.color": INK,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "grid.color": "#e4e4e4",
            "lines.linewidth": 1.8,
            "svg.hashsalt": "tile-infer",
        }
    )


def headline(figure: Figure, text: str) -> None:
    """Write what a figure shows above it."""
    figure.suptitle(text, x=0.01, ha="left", weight="bold")


def side_axis(axes: Axes, sides: Iterable[int]) -> None:
    """Scale the axis of image sides."""
    sides = list(sides)
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(sides) / 1.15, max(sides))
    axes.set_xlabel("side of the image, px")
    wanted = [500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000]
    axes.set_xticks([side for side in wanted if min(sides) / 1.15 <= side <= max(sides)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda side, _: f"{side / 1000:g}k"))
    axes.grid(axis="y")


def powers_of_two(axes: Axes, low: float, high: float, unit: str) -> None:
    """Scale an axis of multiples or sizes, with one tick an octave."""
    axes.set_yscale("log", base=2)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))


def label_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write a name beside each line's last value, apart from each other; ``axes`` is log2 in y."""
    lowest = 0.0
    for value, text, colour in sorted(ends):
        place = max(value, lowest)
        lowest = place * 2**NEAR_OCTAVES
        axes.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
        )


def redundancy() -> Figure:
    """Return the work of each schedule over that of one whole pass."""
    found = curves(load("redundancy")["rows"])
    colours = {
        "tile-infer, free size, GPU": BLUE,
        "tile-infer, free size, CPU": BLUE,
        "tile-infer, 572 px": SKY,
        "tile-infer, 512 px": SKY,
    }
    panels = {
        "valid": "U-Net of the paper (valid)",
        "same": "The same, zero-padded",
    }
    figure = Figure(figsize=(WIDTH_IN, 5.2), layout="constrained")
    both = figure.subplots(2, 1, sharex=True, height_ratios=(1.6, 4.4))
    for axes, (padding, title) in zip(both, panels.items(), strict=True):
        ends = []
        for name, (sides, values) in found.items():
            schedule, _, of = name.rpartition(" (")
            if of != f"{padding})" or schedule == "nnU-Net, step 0.5":  # as MONAI's overlap 0.5
                continue
            ours = schedule in colours
            colour = colours.get(schedule, ORANGE)
            axes.plot(sides, values, color=colour, linestyle="-" if ours else (0, (3, 1.5)))
            ends.append((values[-1], f"{schedule}: {values[-1]:.2f}", colour))
            side_axis(axes, sides)
        most = max(value for value, *_ in ends)
        powers_of_two(axes, 0.93, max(2.7, 1.2 * most), "x")
        label_ends(axes, ends)
        axes.set_title(title)
        axes.label_outer()
    figure.suptitle(
        "Work done, as a multiple of one pass over the whole image",
        x=0.01,
        ha="left",
        weight="bold",
    )
    return figure


PLACES: dict[str, tuple[int, tuple[int, int], Horizontal, Vertical]] = {
    ORANGE: (-1, (8, 0), "left", "center"),
    SKY: (-1, (8, 0), "left", "center"),
    BLUE: (-1, (0, -7), "right", "top"),
    INK: (1, (4, -6), "left", "top"),
}
"""Where a line has its name: at which of its points, how far aside, and how it is aligned."""


def memory() -> Figure:
    """Return peak memory against the image's side, with that of a whole pass."""
    figures = load("memory")
    lines = [(f"{OURS}, demo network", SKY, figures["rows"], "peak_rss_bytes")]
    if "generated" in figures:
        rows = figures["generated"]["rows"]
        lines.append((f"{OURS}, three convolutions", BLUE, rows, "peak_rss_bytes"))
    if (RESULTS / "whole.json").exists():
        whole = load("whole")
        lines += [
            (
                f"{OURS}, U-Net of {whole['width']} channels",
                INK,
                whole["rows"],
                "engine_peak_bytes",
            ),
            ("one whole pass of that U-Net", ORANGE, whole["rows"], "whole_peak_bytes"),
        ]
    figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
    axes = figure.subplots()
    peaks = []
    for name, colour, rows, key in lines:
        points = [(row["side_px"], row[key] / 1e9) for row in rows]
        axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4)
        end, shift, ha, va = PLACES[colour]
        axes.annotate(
            name,
            points[end],
            xytext=shift,
            textcoords="offset points",
            ha=ha,
            va=va,
            color=colour,
            fontsize=9,
        )
        peaks += [value for _, value in points]
    side_axis(axes, [row["side_px"] for _, _, rows, _ in lines for row in rows])
    powers_of_two(axes, min(0.2, *peaks) / 1.3, max(1.5, *peaks) * 1.4, " GB")
    axes.set_title("Peak memory against the size of the image", weight="bold")
    return figure


def peers(table: str, title: str) -> Figure:
    """Return the time of each peer as a multiple of ours, with the labels that differ."""
    rows = [row for row in load("peers")[table] if "not_run" not in row]
    paddings = [name for name in ("same", "valid") if any(r["padding"] == name for r in rows)]
    counts = [sum(row["padding"] == name for row in rows) for name in paddings]
    figure = Figure(figsize=(WIDTH_IN, 1.3 + 0.3 * len(rows)), layout="constrained")
    panels = figure.subplots(len(paddings), 1, squeeze=False, sharex=True, height_ratios=counts)
    titles = {"same": "Zero-padded U-Net", "valid": "U-Net of the paper (valid)"}
    for axes, padding in zip(panels[:, 0], paddings, strict=True):
        chosen = [row for row in rows if row["padding"] == padding]
        ours = next(row["median_seconds"] for row in chosen if row["name"] == OURS)
        for place, row in enumerate(chosen):
            times, differ = row["median_seconds"] / ours, row["labels_differing"]
            mine = row["name"].startswith(OURS)
            axes.barh(place, times, 0.68, color=BLUE if mine else ORANGE if differ else GREY)
            axes.annotate(
                f"{times:.2f}x   {share(differ)}",
                (max(times, 1.0), place),  # beside the line of 1
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(chosen)), [row["name"] for row in chosen])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_title(titles[padding])
        axes.axvline(1, color=INK, linewidth=0.8)
        longest = max(row["median_seconds"] for row in chosen) / ours
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.5 * longest))
    panels[-1, 0].set_xlabel("time, as a multiple of tile-infer's; orange: labels differ")
    headline(figure, title)
    return figure


def gpu() -> Figure:
    """Return the rate of each network and precision on a GPU, and that of the network alone."""
    figures = load("gpu")
    networks = figures["networks"]
    ran = [[row for row in each["engine"] if "failed" not in row] for each in networks]
    figure = Figure(figsize=(WIDTH_IN, 1.6 + 0.35 * sum(map(len, ran))), layout="constrained")
    panels = figure.subplots(len(networks), 1, squeeze=False, height_ratios=[*map(len, ran)])
    for axes, network, rows in zip(panels[:, 0], networks, ran, strict=True):
        for place, row in enumerate(rows):
            rate = row["blocks_mpx_per_second"]
            axes.barh(place, rate, 0.68, color=BLUE)
            axes.annotate(
                f"{rate:.3g}",
                (rate, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
            if "over_network_alone" in row:
                alone = rate / row["over_network_alone"]  # of as many devices
                axes.plot([alone] * 2, [place - 0.4, place + 0.4], color=ORANGE)
        axes.set_yticks(range(len(rows)), [way(row) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        width = network["width"]
        axes.set_title("Threshold" if width == "threshold" else f"U-Net of {width} channels")
    panels[-1, 0].set_xlabel("MPix/s of mask; orange: the network alone")
    headline(figure, figures["name"])
    return figure


def share(differing: float) -> str:
    """Return a share of labels in words."""
    return f"{100 * differing:.2g} % of labels differ" if differing else "no label differs"


FIGURES: dict[str, tuple[str, Callable[[], Figure]]] = {
    "redundancy": ("redundancy", redundancy),
    "memory": ("memory", memory),
    "peers": ("peers", lambda: peers("same_backend", "The same network, library and threads")),
    "peers_as_shipped": ("peers", lambda: peers("as_shipped", "Each with its own defaults")),
    "gpu": ("gpu", gpu),
}
"""Name of the picture; name of the results it needs, and what draws it."""


def main() -> None:
    """Draw every figure whose results are there."""
    style()
    for name, (needed, draw) in FIGURES.items():
        if not (RESULTS / f"{needed}.json").exists():
            print(f"{name}: left out, run {needed}.py first")
            continue
        path = RESULTS / f"{name}.svg"
        options: dict[str, Any] = {"metadata": {"Date": None}, "facecolor": "white"}
        draw().savefig(path, **options)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
