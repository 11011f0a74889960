"""Run the engine in a process of its own, from a file to a mask on disk, and return its figures."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from fresh_process import output

RUN = """
import json, sys
from importlib import import_module
from time import perf_counter
image, model, out, options, *libraries = sys.argv[1:]
for library in libraries:
    import_module(library)
from tile_infer import predict_large
moments, begun = [], perf_counter()
prediction = predict_large(
    image, model, out, on_progress=lambda _: moments.append(perf_counter()), **json.loads(options)
)
wall, plan, report = perf_counter() - begun, prediction.plan, prediction.report
if on_gpu := plan.execution.device != "cpu":
    from torch.cuda import max_memory_allocated
print(json.dumps({
    "seconds": wall,
    "blocks_seconds": moments[-1] - moments[0],
    "backend": plan.execution.backend,
    "form": plan.execution.form,
    "tile": plan.grid.tile,
    "window": plan.grid.window,
    "tiles": plan.grid.tiles,
    "tiles_remembered": report["counts"]["tiles_remembered"],
    "batch": plan.batch,
    "workers": plan.execution.workers,
    "redundancy": plan.redundancy,
    "stages": report["stages"],
    "peak_rss_bytes": report["peak_rss_bytes"],
    "peak_device_bytes": max(map(max_memory_allocated, plan.devices)) if on_gpu else None,
    "warnings": plan.warnings,
}))
"""


def run_engine(
    image: Path, model: Path, out: Path, *libraries: str, **options: Any
) -> dict[str, Any]:
    """Segment; return the seconds of the call and of its blocks, and what was planned.

    Args:
        image: A file.
        model: A file.
        out: Where the mask goes, instead of what is there.
        libraries: What is imported before the clock starts.
        options: Of ``predict_large``.
    """
    shutil.rmtree(out, ignore_errors=True)
    given = [image, model, out, json.dumps(options), *libraries]
    ran = output([sys.executable, "-W", "ignore", "-c", RUN, *given])
    found: dict[str, Any] = json.loads(ran.splitlines()[-1])
    return found
