"""The tables of scaling, from ``results/``."""

from statistics import median

from speed_tables import load, machine, there

PETAPIXEL = 10**15

PUTS_PER_SECOND, GETS_PER_SECOND = 3500, 5500
"""Requests that S3 takes at least for each prefix, as its documentation says."""

SEGMENT_PX = 512
"""Side of an image's tiles, each of which is a request."""


def scaling() -> str:
    """Return what was measured of sharing out."""
    figures = load("scaling")
    asleep, ended = load("sleeping"), figures["finishing"]
    rows = [
        f"{machine(figures)}: all workers share them.",
        "",
        "| what | figure | made by |",
        "|---|---|---|",
        f"| {asleep['workers']} worker processes, {asleep['blocks']:,} blocks in which the network "
        f"sleeps {asleep['seconds_of_a_block']:g} s | efficiency {asleep['efficiency']:.3f} from "
        f"the first block to the last (aim {asleep['aim']}); "
        f"{asleep['seconds_before_the_first_block']:.0f} s before it, in which every worker opens "
        "image and network | `sleeping.py` |",
        *(
            f"| {row['blocks']:,} blocks that are answered at once, {row['workers']} workers "
            f"| {row['ms_a_block']:.2f} ms a block, of which scheduler and client take "
            f"{row['cpu_ms_a_block_of_the_sharing_process']:.2f} ms of one core | `scaling.py` |"
            for row in figures["nothing"]
        ),
        *(
            f"| {row['blocks']:,} blocks in the process that shares out, before the first "
            f"| {row['microseconds_a_block']:.2f} µs and {row['bytes_a_block_at_most']:.0f} bytes "
            "a block | `scaling.py` |"
            for row in figures["alone"]
        ),
        f"| `tile-infer finish`: {ended['blocks']} blocks of {ended['block_px'][0]} x "
        f"{ended['block_px'][1]} px | {ended['ms_a_block']:.1f} ms a block | `scaling.py` |",
        *workers(),
        *same_bytes(),
    ]
    return "\n".join(rows)


def workers() -> list[str]:
    """Return the row of real work."""
    return [
        f"| Two workers of one thread over one process of two, {each['image_px'][0]} px, "
        f"{each['width']}-channel U-Net | {each['median_ratio']:.3f} times its time "
        "| `workers.py` |"
        for each in there("workers")
    ]


def same_bytes() -> list[str]:
    """Return a row for each way of sharing out, against one thread."""
    return [
        f"| {way[0].upper()}{way[1:]}: {each['chunks_and_records']} chunks and records against "
        f"those of one thread | {found['differing']} differ | `same_bytes.py` |"
        for each in there("same_bytes")
        for way, found in each["ways"].items()
    ]


def petapixel() -> str:
    """Return what a run over a petapixel would take, by the constants that were measured."""
    figures, memory = load("scaling"), load("memory")
    ended, alone = figures["finishing"], figures["alone"][-1]
    asked = max(figures["nothing"], key=lambda row: row["blocks"])["ms_a_block"]
    height, width = ended["block_px"]
    blocks = PETAPIXEL / (height * width)
    puts = (height // ended["chunk_px"][0]) * (width // ended["chunk_px"][1]) + 2
    gets = height * width // SEGMENT_PX**2
    unet = load("overhead")["networks"][0]
    rate = unet["image"]["size_px"][0] ** 2 / median(row["blocks_seconds"] for row in unet["rows"])
    bits = unet["image"]["bits_per_px"]
    least, most = (
        8 * row["mask_bytes"] / row["side_px"] ** 2
        for row in (memory["rows"][-1], memory["generated"]["rows"][-1])
    )
    rows = [
        ("blocks", f"of {height} x {width} px", f"{blocks:.1e}"),
        (
            f"network ({unet['width']}-channel U-Net), decoding and writing",
            f"{rate / 1e6:.1f} MPix/s on two cores",
            f"{days(PETAPIXEL / rate)} of two cores",
        ),
        (
            "one Dask scheduler",
            f"{asked:.2f} ms a block",
            f"{days(blocks * asked / 1e3)}; it keeps {1e3 / asked:.0f} workers busy whose blocks "
            "take a second",
        ),
        (
            "the process that shares out, and each part",
            f"{alone['microseconds_a_block']:.2f} µs and {alone['bytes_a_block_at_most']:.0f} "
            "bytes a block",
            f"{blocks * alone['microseconds_a_block'] / 6e7:.0f} minutes, "
            f"{blocks * alone['bytes_a_block_at_most'] / 1e9:.0f} GB of memory",
        ),
        (
            "`tile-infer finish`, one process",
            f"{ended['ms_a_block']:.1f} ms a block",
            days(blocks * ended["ms_a_block"] / 1e3),
        ),
        (
            "requests that write",
            f"{puts} a block: chunks of two levels and the record",
            f"{days(blocks * puts / PUTS_PER_SECOND)} at {PUTS_PER_SECOND:,} a second",
        ),
        (
            "requests that read",
            f"{gets} a block: tiles of {SEGMENT_PX} px, one by one",
            f"{days(blocks * gets / GETS_PER_SECOND)} at {GETS_PER_SECOND:,} a second",
        ),
        ("bytes of the image", f"{bits} bits a pixel (JPEG)", terabytes(bits)),
        (
            "bytes of the mask",
            f"{least:.2f} bits a pixel (nuclei) to {most:.1f} (noise)",
            f"{terabytes(least)} to {terabytes(most)}",
        ),
    ]
    head = ["| what | measured, or stated | a petapixel |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def days(seconds: float) -> str:
    """Return a time for people."""
    return (
        f"{seconds / 86400:,.1f} days" if seconds < 86400 * 10 else f"{seconds / 86400:,.0f} days"
    )


def terabytes(bits: float) -> str:
    """Return the size of a petapixel."""
    return f"{PETAPIXEL * bits / 8e12:,.0f} TB"
