"""Put the figures of ``results/`` into the README and `docs/`, between their markers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scaling_tables import petapixel, scaling
from speed_tables import (
    codecs,
    floor,
    generated,
    gpu,
    load,
    machine,
    overhead,
    peers,
    speed,
    whole_pass,
)

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("outputs", "scaling", "speed", "training")),
)


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
    memory, demo = load("memory"), load("demo")
    trained, isbi = load("training_demo"), load("training_isbi")
    images, odd, networks = load("real_images"), load("odd_files"), load("real_networks")
    world = next(row for row in images["rows"] if row["image"] == "cog_world.tif")
    whole, cut = odd["kept_100_percent"], odd["kept_60_percent"]
    models = {row["model"]: row["mask"] for row in networks["rows"]}
    blended = sum(mask == "blended" for mask in models.values())
    rows = [
        f"{machine(load('overhead'))}.",
        "",
        "| what | figure | made by |",
        "|---|---|---|",
        *overhead(),
        *floor(),
        *whole_pass()[-1:],
        *generated(),
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
        resumed(),
        f"| Demo network (trained on other seeds), Dice on the demo slide | {demo['dice']:.3f} "
        "| `demo.py` |",
        f"| The same, {len(trained['test_seeds'])} parts of other unseen slides, "
        f"{trained['rows'][0]['nuclei']} nuclei | Dice {spread(trained['summary']['dice'])}, "
        f"F1 of nuclei {spread(trained['summary']['instance_f1'])} | `training_demo.py` |",
        f"| U-Net of {isbi['width']} channels on the U-Net paper's task, unseen slices "
        f"| pixel error {spread(isbi['summary']['unet']['pixel_error'], 4)}, IoU of membranes "
        f"{spread(isbi['summary']['unet']['iou_membrane'])} | `training_isbi.py` |",
    ]
    return "\n".join(rows)


def resumed() -> str:
    """Return the row of runs that were killed and resumed."""
    found = load("kills")
    kills = found["stops"]["SIGKILL"]
    again = found["blocks_written_again_after_a_stop"]["SIGKILL"]
    return (
        f"| {kills['in_all']} kills at random moments, {kills['between']} between the first and "
        f"the last of {found['chunks']} chunks, resumed until {found['masks_completed']} masks "
        f"were done | {found['bytes_differing']} bytes differ, {found['hangs']} hangs; of "
        f"{found['blocks']} blocks, at most {again['most']} were written twice for a kill "
        f"({found['blocks_in_flight']} are in flight) | `kills.py` |"
    )


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


def spread(figures: dict[str, float | None], digits: int = 3) -> str:
    """Return the mean over the seeds, and the standard deviation where there are several."""
    mean, deviation = figures["mean"], figures["standard_deviation"]
    assert mean is not None
    shown = f"{mean:.{digits}f}"
    return shown if deviation is None else f"{shown} ± {deviation:.{digits}f}"


def difference(compared: dict[str, Any], digits: int = 3) -> str:
    """Return the mean of paired differences, and what the paired test says of it."""
    if compared["mean"] is None:
        return "-"
    p = "" if compared["p"] is None else f" (p {compared['p']:.2g})"
    return f"{compared['mean']:+.{digits}f}{p}"


def trained_with(rows: list[dict[str, Any]], width: int) -> str:
    """Return what a figure of trained networks must be read with: steps, width, time."""
    minutes = sorted({round(row["seconds"] / 60) for row in rows})
    taken = " to ".join(str(each) for each in sorted({minutes[0], minutes[-1]}))
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in rows}))
    return (
        f"{rows[0]['steps']} steps of one tile, width {width}, {taken} minutes for each training "
        f"on one of two cores that did other work as well; seed {seeds}."
    )


def test_slides(figures: dict[str, Any]) -> str:
    """Return what trained networks were tested on."""
    return (
        f"{len(figures['test_seeds'])} parts of {figures['patch_px']} x {figures['patch_px']} px "
        f"of slides of unseen seeds, {figures['rows'][0]['nuclei']} nuclei of "
        f"{figures['min_size_px']} px and more, many of which touch. "
    )


def training_demo() -> str:
    """Return the table of the demo network."""
    figures = load("training_demo")
    rows = [
        "| seed | Dice | Dice, gaps between touching nuclei left free | IoU | F1 of nuclei |",
        "|---|---|---|---|---|",
        *(
            f"| {row['seed']} | {row['dice']:.3f} | {row['dice_parted']:.3f} | {row['iou']:.3f} "
            f"| {row['instance_f1']:.3f} |"
            for row in figures["rows"]
        ),
        "",
        test_slides(figures)
        + trained_with(figures["rows"], figures["width"])
        + " `benchmarks/training_demo.py`.",
    ]
    return "\n".join(rows)


_ARMS = {
    "recipe": "recipe of the demo network",
    "no_weight_map": "without the weight map (w0 = 0)",
    "no_elastic": "without elastic deformation",
}


def training_ablation() -> str:
    """Return the table of the ablations."""
    figures = load("training_ablation")
    rows = [
        "| trained | Dice | recipe less this | F1 of nuclei | recipe less this |",
        "|---|---|---|---|---|",
    ]
    for arm, found in figures["summary"].items():
        minus = figures["recipe_minus"].get(arm)
        cells = [
            cell
            for key in ("dice", "instance_f1")
            for cell in (spread(found[key]), difference(minus[key]) if minus else "")
        ]
        rows.append(f"| {_ARMS[arm]} | {' | '.join(cells)} |")
    rows += [
        "",
        test_slides(figures)
        + "Mean and standard deviation over the seeds; p of the paired t test. "
        + trained_with(figures["rows"], figures["width"])
        + " `benchmarks/training_ablation.py`.",
    ]
    return "\n".join(rows)


_NETWORKS = {
    "unet": "U-Net, zero-padded",
    "wide_unet": "wide U-Net",
    "unetp": "UNet+, mean of its heads",
    "unetpp": "UNet++, mean of its heads",
    "unetp_last_head": "the same UNet+, its last head alone",
    "unetpp_last_head": "the same UNet++, its last head alone",
}


def training_isbi() -> str:
    """Return the table of networks on electron microscopy."""
    figures = load("training_isbi")
    minus = figures["minus_unet"]
    rows = [
        "| network | parameters | IoU of membranes | less U-Net | IoU of cells "
        "| pixel error | less U-Net |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in figures["summary"].items():
        parameters = next(row["parameters"] for row in figures["rows"] if row["network"] == name)
        compared = {each["measure"]: each for each in minus.get(name, [])}
        iou, wrong = (
            difference(compared[key], 4) if compared else ""
            for key in ("iou_membrane", "pixel_error")
        )
        rows.append(
            f"| {_NETWORKS[name]} | {parameters:,} | {spread(found['iou_membrane'])} | {iou} "
            f"| {spread(found['iou_cell'])} | {spread(found['pixel_error'], 4)} | {wrong} |"
        )
    slices = figures["slices"]
    rows += [
        "",
        "Membranes in electron microscopy (ISBI 2012, 512 x 512 px a slice): slices "
        + ", ".join(f"{first} to {last} for {use}" for use, (first, last) in slices.items())
        + ", which nothing else looked at. "
        + trained_with([row for row in figures["rows"] if "steps" in row], figures["width"])
        + " `benchmarks/training_isbi.py`.",
    ]
    return "\n".join(rows)


def training_pruned() -> str:
    """Return the table of the pruned networks."""
    figures = load("training_pruned")
    machine = figures["machine"]
    rows = [
        "| network | parameters | seconds a megapixel | Dice of membranes | Dice of cells "
        "| IoU of membranes |",
        "|---|---|---|---|---|---|",
    ]
    for level, found in figures["summary"].items():
        rows.append(
            f"| {level} | {found['parameters']:,} | {spread(found['seconds_per_megapixel'], 2)} "
            f"| {spread(found['dice_membrane'])} | {spread(found['dice_cell'])} "
            f"| {spread(found['iou_membrane'])} |"
        )
    rows += [
        "",
        f"The UNet++ of the table above, of {figures['width']} channels; threads: "
        f"{figures['threads']}, of an {machine['cpu']}, ONNX Runtime, one tile of "
        f"{figures['timed_px']} px.",
    ]
    return "\n".join(rows)


def demo_fluorescence() -> str:
    """Return the table of the demo network on fluorescent nuclei."""
    figures = load("demo_fluorescence")
    rows = ["| made to look | reduced by | IoU | F1 of nuclei |", "|---|---|---|---|"]
    rows += [
        f"| {row['colours']} | {row['reduced_by']} | {row['iou']:.3f} | {row['instance_f1']:.3f} |"
        for row in figures["rows"]
    ]
    return "\n".join([*rows, "", "`benchmarks/demo_fluorescence.py`."])


TABLES: dict[str, Callable[[], str]] = {
    "phase": phase,
    "measured": measured,
    "exports": exports,
    "speed": speed,
    "codecs": codecs,
    "peers": partial(peers, "same_backend"),
    "peers_as_shipped": partial(peers, "as_shipped"),
    "gpu": gpu,
    "scaling": scaling,
    "petapixel": petapixel,
    "training_demo": training_demo,
    "training_ablation": training_ablation,
    "training_isbi": training_isbi,
    "training_pruned": training_pruned,
    "demo_fluorescence": demo_fluorescence,
}


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
