"""The tables of speed, from ``results/``."""

import json
from typing import Any

from results_file import RESULTS
from tile_infer.engine.calibration import NAMES


def load(name: str) -> dict[str, Any]:
    """Return the figures of one result."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def there(*names: str) -> list[dict[str, Any]]:
    """Return the figures of those results that have been measured."""
    return [load(name) for name in names if (RESULTS / f"{name}.json").exists()]


def machine(figures: dict[str, Any]) -> str:
    """Return what a figure was measured on."""
    found = figures["machine"]
    return f"{found['cores']} cores of an {found['cpu']}, no GPU"


def overhead() -> list[str]:
    """Return a row for each network around which the engine was measured."""
    return [
        f"| Engine, from JPEG slide to mask on disk, over the best that network, decoding and "
        f"writing do alone ({each['width']}-channel U-Net, {NAMES[each['backend']]} fp32, "
        f"{each['image']['size_px'][0]} px) | {each['median_ratio']:.2f} times their time, "
        f"{each['median_ratio_of_blocks']:.2f} from the first block to the last (aim "
        f"{figures['aim']}) | `overhead.py` |"
        for figures in there("overhead")
        for each in figures["networks"]
    ]


def floor() -> list[str]:
    """Return the row of the network that costs next to nothing."""
    return [
        f"| The same with a threshold for a network, {figures['image']['size_px'][0]} px "
        f"| {figures['median_engine_mpx_per_second']:.0f} MPix/s, "
        f"{figures['median_engine_over_floor']:.2f} of what decoding, the threshold and writing "
        f"leave, one after the other on all cores (aims {figures['aims']['mpx_per_second']} and "
        f"{figures['aims']['of_floor']}) | `floor.py` |"
        for figures in there("floor")
    ]


def certificate() -> list[str]:
    """Return a row for each size at which the certificate's cost was measured."""
    return [
        f"| The certificate that a run ends with, {size['image']['size_px'][0]} px "
        f"({figures['width']}-channel U-Net) | {size['median_ratio']:.3f} times the time without, "
        f"{size['median_seconds']:.2f} s | `certificate.py` |"
        for figures in there("certificate")
        for size in figures["sizes"]
    ]


def whole_pass() -> list[str]:
    """Return a row for each size that one pass over the whole image was compared at."""
    return [
        f"| Engine over one pass over the whole image, {row['side_px']} x {row['side_px']} "
        f"px, both from JPEG to disk ({figures['width']}-channel U-Net, "
        f"{NAMES[figures['backend']]} {figures['precision']}) "
        f"| {row['median_ratio']:.2f} times its time; {row['engine_peak_bytes'] / 1e6:.0f} MB "
        f"against {row['whole_peak_bytes'] / 1e6:.0f}; {row['labels_differing']} labels differ"
        f"{', in ties alone' if row['labels_differing'] and row['differ_only_in_ties'] else ''}"
        " | `whole.py` |"
        for figures in there("whole", "whole_openvino")
        for row in figures["rows"]
    ]


def generated() -> list[str]:
    """Return a row for each size of the image that is made when it is read."""
    return [
        f"| Peak memory, {row['side_px']} x {row['side_px']} px made when read "
        f"({figures['generated']['network']}) "
        f"| {row['peak_rss_bytes'] / 1e6:.0f} MB (planned {row['planned_bytes'] / 1e6:.0f}), "
        f"{row['largest_disk_bytes'] / 1e6:.0f} MB of disk for {row['mask_bytes'] / 1e6:.0f} of "
        "mask | `memory.py` |"
        for figures in there("memory")
        if "generated" in figures
        for row in figures["generated"]["rows"]
    ]


PADDINGS = {"same": "zero-padded", "valid": "the paper's"}


def peers(table: str) -> str:
    """Return a table of what others take for the same slide and network."""
    figures = load("peers")
    rows = [
        "| what | U-Net | time | over ours | its work over ours | peak memory | labels differ |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = {
        row["padding"]: row["median_seconds"]
        for row in figures[table]
        if row["name"] == "tile-infer"
    }
    for row in figures[table]:
        start = f"| {row['name']} | {PADDINGS[row['padding']]} |"
        if "not_run" in row:
            rows.append(f"{start} not run: {row['not_run']} | | | | |")
            continue
        faster = row["median_seconds"] / ours[row["padding"]]
        differing = row["labels_differing"]
        rows.append(
            f"{start} {row['median_seconds']:.1f} s "
            f"| {'' if row['name'] == 'tile-infer' else f'{faster:.2f} times'} "
            f"| {row['input_px_over_ours']:.2f} | {row['largest_peak_bytes'] / 1e9:.2f} GB "
            f"| {f'{100 * differing:.2g} %' if differing else 'none'} |"
        )
    image = figures["image"]
    versions: dict[str, str] = {}
    for row in figures[table]:
        versions |= row.get("versions", {})
    named = ("torch", "monai", "tiatoolbox", "nnunetv2", "torchio")
    height, width = image["size_px"]
    return "\n".join(
        [
            *rows,
            "",
            f"A slide of {height} x {width} px, JPEG tiles, {image['bits_per_px']:g} bits a pixel; "
            f"medians of {figures['rounds']} runs in rotating order, {machine(figures)}; "
            + ", ".join(f"{name} {versions[name]}" for name in named if name in versions)
            + ". Labels are compared with one pass of Torch over the whole mirrored image; "
            "`benchmarks/peers.py`.",
        ]
    )


def way(row: dict[str, Any]) -> str:
    """Return how a network was run on a GPU, or several, in words."""
    compiled = ", compiled" if row["compiled"] else ""
    gpus = f", {row['devices']} GPUs" if row["devices"] > 1 else ""
    return f"{row['precision']}{compiled}{gpus}"


def gpu() -> str:
    """Return the table of a GPU, or several, or what there is to be measured."""
    names = {"threshold": "threshold", 16: "U-Net of 16 channels", 64: "U-Net of the paper"}
    rows = [
        "| network | precision | MPix/s | over the network alone | of the bf16 matrix rate "
        "| labels that differ from fp32 | peak memory of the GPU |",
        "|---|---|---|---|---|---|---|",
    ]
    found = there("gpu")
    if not found:
        cells = " | ".join(["not measured"] * 6)
        return "\n".join([*rows, *[f"| {name} | {cells} |" for name in names.values()]])
    for network in found[0]["networks"]:
        for row in network["engine"]:
            start = f"| {names[network['width']]} | {way(row)} |"
            if "failed" in row:
                rows.append(f"{start} failed: {row['failed']} | | | | |")
                continue
            shares = [
                f"{row[key]:.2f}" if key in row else ""
                for key in ("over_network_alone", "of_bf16_matrix_rate")
            ]
            rows.append(
                f"{start} {row['blocks_mpx_per_second']:.0f} | {' | '.join(shares)} "
                f"| {100 * row['labels_differing_from_fp32']:.2g} % "
                f"| {(row['peak_device_bytes'] or 0) / 1e9:.1f} GB |"
            )
    return "\n".join([*rows, "", f"{found[0]['name']}; `benchmarks/gpu.py`."])


def codecs() -> str:
    """Return the table of codecs."""
    figures = load("mask_codecs")
    contents = list(dict.fromkeys(row["content"] for row in figures["rows"]))
    found = {(row["content"], row["codec"]): row for row in figures["rows"]}
    rows = [
        "| codec | " + " | ".join(contents) + " |",
        "|---|" + "---|" * len(contents),
    ]
    for codec in dict.fromkeys(row["codec"] for row in figures["rows"]):
        cells = [
            f"{row['write_ns_per_px']:.1f} + {row['read_ns_per_px']:.1f} ns, "
            f"{row['bits_per_px']:.2f} bits"
            for row in (found[content, codec] for content in contents)
        ]
        rows.append(f"| {codec} | {' | '.join(cells)} |")
    rows += [
        "",
        f"Nanoseconds of one core to write and to read a pixel, and its size; chunks of "
        f"{figures['chunk_px']} px in memory, {machine(figures)}; `benchmarks/mask_codecs.py`.",
    ]
    return "\n".join(rows)


def speed() -> str:
    """Return the table of all that was measured of speed."""
    figures = load("overhead")
    images = {each["image"]["bits_per_px"] for each in figures["networks"]}
    return "\n".join(
        [
            "| what | figure | made by |",
            "|---|---|---|",
            *overhead(),
            *floor(),
            *whole_pass(),
            *certificate(),
            "",
            f"{machine(figures)}. Medians of runs in turns; slides of JPEG tiles, 4:2:0, "
            f"{' and '.join(f'{bits:g}' for bits in sorted(images))} bits a pixel (the threshold's "
            "as its result says), textured everywhere: no tile is remembered. Runs are without the "
            "certificate, which `certificate.py` measures.",
        ]
    )
