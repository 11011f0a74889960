"""Networks that nobody made for this project: what is measured of each, its mask against a loop.

A network that can be tiled exactly is compared with a plain loop over the mirror-extended image,
whose crops were chosen by hand from what is known of the network. One that cannot is compared with
the sliding window of the papers: every tile's probabilities times a Hann window, summed, divided by
the summed windows. Neither loop uses the engine; of its plan only the distance of blended tiles.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import imagecodecs
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from data_folder import DATA
from results_file import save
from tile_infer import ModelError, TileInferWarning, predict_large

MODELS, PHOTOGRAPH = DATA / "models", DATA / "large/osd_6976x5074.jpg"
HEIGHT, WIDTH = 601, 1103
CUTS = {  # first output pixel kept, and how many, of a tile: multiples of the period
    "weights": (64, 384),
    "unet": (32, 160),
}
"""Known halos, rounded up: 53 px at period 8, and 22 px at period 4; the others have none."""

Pixels = NDArray[np.float32]
Run = Callable[[Pixels], Pixels]


def mirrored(length: int, first: int, count: int) -> NDArray[np.intp]:
    """Return the pixels of an axis from ``first`` on, turning round at both ends."""
    where = np.abs(np.arange(first, first + count)) % max(1, 2 * length - 2)
    return np.where(where < length, where, 2 * length - 2 - where)


def cut(image: Pixels, y: int, x: int, height: int, width: int) -> Pixels:
    """Return a tile ``(channel, y, x)`` of the mirror-extended image ``(y, x, channel)``."""
    rows, columns = mirrored(image.shape[0], y, height), mirrored(image.shape[1], x, width)
    return np.ascontiguousarray(image[rows][:, columns].transpose(2, 0, 1))


def opened(path: Path) -> Any:
    """Return a session that does not comment on the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def session(path: Path, head: int) -> tuple[Run, tuple[int, int, int]]:
    """Return the network as a function of a tile ``(channel, y, x)``, and the size of its tile."""
    found = opened(path)
    entry = found.get_inputs()[0]
    channels, height, width = entry.shape[1:]

    def run(tile: Pixels) -> Pixels:
        output: Pixels = found.run(None, {entry.name: tile[None]})[head]
        return output[0] if output.ndim == 4 else output

    return run, (channels, height, width)


def chances(logits: Pixels, activation: str) -> Pixels:
    """Return probabilities, as the plan says they are made of what the file returns."""
    if activation == "softmax":
        exponents = np.exp(logits - logits.max(axis=0))
        return np.asarray(exponents / exponents.sum(axis=0), np.float32)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32) if activation == "sigmoid" else logits


def exact_loop(run: Run, image: Pixels, tile: tuple[int, int], name: str) -> Pixels:
    """Return what the file says of the image, ``(class, y, x)``, tile beside tile."""
    output = run(cut(image, 0, 0, *tile)).shape[-2:]
    first, core = CUTS.get(name, (0, min(output)))
    margin = (tile[0] - output[0]) // 2
    rows = [
        np.concatenate(
            [
                run(cut(image, y - first - margin, x - first - margin, *tile))[
                    :, first : first + core, first : first + core
                ]
                for x in range(0, WIDTH, core)
            ],
            axis=2,
        )
        for y in range(0, HEIGHT, core)
    ]
    return np.concatenate(rows, axis=1)[:, :HEIGHT, :WIDTH]


def sliding_window(
    run: Run, image: Pixels, tile: tuple[int, int], stride: tuple[int, int], activation: str
) -> NDArray[np.float64]:
    """Return blended probabilities ``(class, y, x)`` in the output's own resolution."""
    output = run(cut(image, 0, 0, *tile)).shape
    scale = output[1] // tile[0]
    hann = [np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in output[1:]]
    window = np.outer(*hann)
    height, width = scale * HEIGHT, scale * WIDTH
    total, weight = np.zeros((output[0], height, width)), np.zeros((height, width))
    for row in range(-(tile[0] // stride[0]) - 1, HEIGHT // stride[0] + 1):
        for column in range(-(tile[1] // stride[1]) - 1, WIDTH // stride[1] + 1):
            y, x = row * stride[0], column * stride[1]
            inside = [
                slice(max(0, scale * a), min(length, scale * a + n))
                for a, n, length in zip((y, x), output[1:], (height, width), strict=True)
            ]
            if any(part.stop <= part.start for part in inside):
                continue
            own = tuple(
                slice(part.start - scale * a, part.stop - scale * a)
                for part, a in zip(inside, (y, x), strict=True)
            )
            found = chances(run(cut(image, y, x, *tile)), activation)
            total[:, inside[0], inside[1]] += found[:, own[0], own[1]] * window[own]
            weight[inside[0], inside[1]] += window[own]
    return total / weight


def compare(path: Path, head: int, image: NDArray[np.uint8], folder: Path) -> dict[str, Any]:
    """Segment the image and return the verdict, and how far the mask is from the loop's."""
    run, (channels, *size) = session(path, head)
    pixels = image if channels == 3 else image[..., 1:2]
    normalize: Any = "zscore" if path.stem == "weights" else "unit"
    begun = perf_counter()
    found = predict_large(
        pixels,
        path,
        folder / f"{path.stem}-{head}.zarr",
        head=str(head),
        axes="YXC",
        normalize=normalize,
        output="probabilities",
    )
    seconds = perf_counter() - begun
    plan = found.plan
    offset, factor = (
        np.array(values, np.float32) for values in (plan.recipe.offset, plan.recipe.scale)
    )
    fed = np.asarray((pixels.astype(np.float32) - offset) * factor, np.float32)
    # The engine cuts off what ends the file; the loops take the file as it is.
    left = "none" if plan.network.ends_in != "none" else plan.recipe.activation
    tile = (size[0], size[1])
    if plan.blend:
        stride = plan.grid.y.stride, plan.grid.x.stride
        reference = sliding_window(run, fed, tile, stride, left).astype(np.float32)
    else:
        reference = chances(exact_loop(run, fed, tile, path.stem), left)
    labels = (reference[0] > 0.5) if len(reference) == 1 else reference.argmax(axis=0)
    both = np.concatenate([reference, 1 - reference]) if len(reference) == 1 else reference
    best = np.sort(both, axis=0)
    clear = best[-1] - best[-2] > 1e-4
    stored = np.asarray(found.probabilities, np.float32)
    return {
        "model": f"{path.parent.name}/{path.stem}",
        "head": head,
        "verdict": plan.probe.verdict,
        "because": list(plan.network.tile_dependent) if plan.blend else [],
        "scale": str(plan.grid.scale),
        "period": plan.probe.geometry.x.period,
        "halo": plan.probe.geometry.x.halo_before,
        "mask": "blended" if plan.blend else "exact",
        "size_px": list(found.mask.shape),
        "largest_probability_error": float(np.abs(stored - reference).max()),
        "labels_differing": int(((np.asarray(found) != labels) & clear).sum()),
        "seconds": round(seconds, 1),
    }


def main() -> int:
    """Run all, print and save."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    if not (MODELS.is_dir() and PHOTOGRAPH.exists()):
        print("the data folder lacks models or the photograph; set TILE_INFER_TEST_DATA to it")
        return 1
    warnings.simplefilter("ignore", TileInferWarning)  # the verdict is in the results
    photograph = np.asarray(imagecodecs.jpeg_decode(PHOTOGRAPH.read_bytes()))
    image = np.ascontiguousarray(photograph[2000 : 2000 + HEIGHT, 3000 : 3000 + WIDTH])
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(MODELS.glob("*/*.onnx")):
            heads = len(opened(path).get_outputs())
            for head in range(heads):
                try:
                    rows.append(compare(path, head, image, Path(folder)))
                    print(rows[-1], flush=True)
                except ModelError as error:
                    refused[path.stem] = str(error).replace(str(path), path.name)
                    print(refused[path.stem], flush=True)
    right = all(
        row["labels_differing"] == 0 and row["largest_probability_error"] < 1e-3 for row in rows
    )
    print(save("real_networks", {"right": right, "refused": refused, "rows": rows}))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
