"""Put the figures of ``results/`` into the README and `docs/`, between their markers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from results_file import RESULTS

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "outputs.md")


def load(name: str) -> dict[str, Any]:
    """Return the figures of one result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def phase() -> str:
    """Return the table of strides."""
    figures = load("phase")
    rows = [
        "| stride, px | labels that differ from one whole pass | largest error of the logits |",
        "|---|---|---|",
    ]
    for stride, median in figures["median_labels_differing"].items():
        errors = [
            row["largest_error_of_largest_logit"]
            for row in figures["rows"]
            if row["stride_px"] == int(stride)
        ]
        label = f"**{stride}**" if stride == "384" else stride
        rows.append(f"| {label} | {median:.1%} | {max(errors):.2g} of the largest |")
    seeds = len({row["seed"] for row in figures["rows"]})
    rows += [
        "",
        f"Median and maximum over {seeds} random networks of {figures['width']} channels, an image "
        f"of {figures['side_px']} x {figures['side_px']} px; `benchmarks/phase.py`, a plain loop "
        "without this package.",
    ]
    return "\n".join(rows)


def measured() -> str:
    """Return the table of figures, and the machine they were measured on."""
    memory, overhead, demo = load("memory"), load("overhead"), load("demo")
    images, odd, networks = load("real_images"), load("odd_files"), load("real_networks")
    world = next(row for row in images["rows"] if row["image"] == "cog_world.tif")
    whole, cut = odd["kept_100_percent"], odd["kept_60_percent"]
    models = {row["model"]: row["mask"] for row in networks["rows"]}
    blended = sum(mask == "blended" for mask in models.values())
    machine = overhead["machine"]
    rows = [
        f"{machine['cores']} cores of an {machine['cpu']}, no GPU.",
        "",
        "| what | figure | made by |",
        "|---|---|---|",
        f"| Engine, from JPEG slide to mask on disk, against its network alone on the same tiles "
        f"({overhead['width']}-channel U-Net, 572-px tiles, ONNX Runtime fp32) "
        f"| {overhead['median_ratio']:.2f} times its time "
        f"({overhead['median_ratio_of_blocks']:.2f} without probe and plan) | `overhead.py` |",
        *(
            f"| Peak memory, {row['side_px']} x {row['side_px']} px "
            f"| {row['peak_rss_bytes'] / 1e6:.0f} MB (planned {row['planned_bytes'] / 1e6:.0f}) "
            "| `memory.py` |"
            for row in memory["rows"]
        ),
        f"| Peak memory, a COG of {world['size_px'][0]} x {world['size_px'][1]} px "
        f"| {world['peak_rss_bytes'] / 1e6:.0f} MB (planned {world['planned_bytes'] / 1e6:.0f}) "
        "| `real_images.py` |",
        f"| {whole['files']} odd TIFFs through the command line | "
        f"{whole['files_with_equal_masks']} masks equal to what tifffile reads, "
        f"{whole['files_refused']} refused in one line | `odd_files.py` |",
        f"| The same, cut to 60 % | {cut['files_with_equal_masks']} still right, "
        f"{cut['files_refused']} refused in one line, {cut['files_with_both']} either by network "
        "| `odd_files.py` |",
        f"| {len(models)} networks that others made, masks against plain loops "
        f"| {len(models) - blended} exact, {blended} blended, "
        f"{sum(row['labels_differing'] for row in networks['rows'])} labels differ "
        "| `real_networks.py` |",
        f"| Demo network (trained on other seeds), Dice on the demo slide | {demo['dice']:.3f} "
        "| `demo.py` |",
    ]
    return "\n".join(rows)


def exports() -> str:
    """Return the table of exports, and the machine they were measured on."""
    figures = load("exports")
    machine = figures["machine"]
    rows = [
        "| mask | format | CPU seconds | memory added, MB | file, MB |",
        "|---|---|---|---|---|",
        *(
            f"| {row['mask']}, {row['side_px']} x {row['side_px']} px | `{row['format']}` "
            f"| {row['cpu_seconds']:.1f} | {row['added_bytes'] / 1e6:.0f} "
            f"| {row['file_bytes'] / 1e6:.1f} |"
            for row in figures["rows"]
        ),
        "",
        f"{machine['cores']} cores of an {machine['cpu']}; `benchmarks/exports.py`: discs of two "
        "classes, 300 in a million pixels, and three classes at random.",
    ]
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {"phase": phase, "measured": measured, "exports": exports}


def filled(text: str) -> str:
    """Return a page with the tables that the results give."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        if begin not in text:
            continue
        before, rest = text.split(begin)
        text = before + begin + table() + "\n" + end + rest.split(end, 1)[1]
    return text


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
