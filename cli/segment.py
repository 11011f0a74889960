"""`tile-infer IMAGE... --model MODEL`: the main job."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine.backends import open_network
from ..engine.exports import ExportOptions, check_suffix, export
from ..engine.plan import Plan
from ..engine.predict import predict
from ..engine.prediction import Prediction
from ..engine.settings import Settings
from ..engine.sources import open_source
from ..tiler.errors import DeviceError, SettingError
from .failure import FAILED, explain
from .options import RESULT, Options
from .outputs import check_file, mask_paths
from .palette import class_colours
from .preview import preview as draw_preview
from .preview import write_png
from .progress import ProgressReport
from .summary import run_lines
from .terminal import Terminal

NO_OPTIONS = Options()


def segment(
    *images: Path,
    model: Path,
    out: Annotated[Path | None, Parameter(group=RESULT)] = None,
    overwrite: Annotated[bool, Parameter(group=RESULT)] = False,
    preview: Annotated[Path | None, Parameter(group=RESULT, metavar="FILE.png")] = None,
    report: Annotated[Path | None, Parameter(group=RESULT, metavar="FILE.json")] = None,
    also: Annotated[list[Path] | None, Parameter(group=RESULT, metavar="FILE")] = None,
    options: Options = NO_OPTIONS,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Segment images of any size with the mask of one whole pass.

    The same command continues a run that was stopped.

    Args:
        images: Images to segment: TIFF files, or Zarr folders.
        model: The network, an ONNX file.
        out: Folder of the mask, or for several images the folder that all masks go into
            [default: slide.unet.zarr beside slide.tif].
        overwrite: Start again where a mask of other settings is.
        preview: Picture of image and mask overlaid, at most 2048 px.
        report: Figures of the run, as JSON.
        also: The mask in another format as well: .ome.tif (pyramidal OME-TIFF), .tif (tiled, with
            overviews and the image's georeference) or .geojson (polygons for QuPath); may be given several times.
        options: How to do it.
        terminal: Where to print.
    """
    if not images:
        raise SettingError("an image is missing; try: tile-infer slide.tif --model unet.onnx")
    if len(images) > 1 and (preview or report or also):
        raise SettingError(
            "--preview, --report and --also are for one image; run the images one by one"
        )
    check_file("--preview", preview, ".png")
    check_file("--report", report, ".json")
    for path in also or ():
        check_file("--also", path, check_suffix(path))
    settings = options.settings()
    paths = mask_paths(images, model, out)
    if len(images) > 1:
        return _segment_all(images, model, paths, settings, overwrite, terminal)
    done = segment_one(images[0], model, paths[0], settings, overwrite, terminal)
    if report:
        report.write_text(json.dumps(done.report, indent=2) + "\n")
    for path in also or ():
        export(done, path, ExportOptions(colours=class_colours(len(done.plan.class_names))))
    if preview:
        with closing(open_source(images[0], **settings.of_image())) as source:
            plan = done.plan
            picture = draw_preview(
                source, done.group, len(plan.class_names), plan.level, plan.nodata
            )
        write_png(preview, picture)
    return 0


def segment_one(
    image: Path,
    model: Path,
    out: Path | None,
    settings: Settings,
    overwrite: bool,
    terminal: Terminal,
    title: str | None = None,
) -> Prediction:
    """Segment one image, telling the user what happens."""

    def announce(plan: Plan) -> None:
        for note in plan.notes:
            terminal.note(note)

    with ProgressReport(terminal, title or image.name) as progress:
        done = predict(
            image,
            model,
            out,
            settings,
            overwrite=overwrite,
            on_plan=announce,
            on_progress=progress,
        )
    for line in run_lines(done.report, done.plan):
        terminal.print(line)
    return done


def _segment_all(
    images: tuple[Path, ...],
    model: Path,
    paths: list[Path | None],
    settings: Settings,
    overwrite: bool,
    terminal: Terminal,
) -> int:
    """Segment several images; one that fails does not keep the others from being done."""
    open_network(model, settings.head).close()  # what fails for all need not be said for each
    failed: list[str] = []
    for number, (image, path) in enumerate(zip(images, paths, strict=True), 1):
        title = f"[{number}/{len(images)}] {image.name}"
        try:
            segment_one(image, model, path, settings, overwrite, terminal, title)
        except DeviceError:
            raise
        except Exception as error:
            text = explain(error).text
            failed.append(text if str(image) in text else f"{image}: {text}")
            terminal.error(failed[-1])
            if terminal.verbose:
                terminal.traceback()
    terminal.print(f"{len(images) - len(failed)} of {len(images)} images done")
    if failed:
        terminal.error(f"{len(failed)} of {len(images)} images failed:")
        for line in failed:
            terminal.stderr.print(f"  {line}", soft_wrap=True)
    return FAILED if failed else 0
