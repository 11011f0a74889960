"""`tile-infer IMAGE... --model MODEL`: the main job."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine.backends import Network, open_network
from ..engine.conduct import Conduct
from ..engine.crew import Crew
from ..engine.exports import SUFFIXES, ExportOptions, export
from ..engine.exports.whole_file import whole_file
from ..engine.naming import mask_name
from ..engine.part import Part
from ..engine.plan import Plan
from ..engine.predict import DEFAULT, THREADS, predict
from ..engine.prediction import Prediction
from ..engine.settings import Settings
from ..engine.sources import open_source
from ..tiler.errors import DeviceError, OutputError, SettingError, failing_as
from .companions import Companion, check_companions, companion
from .failure import FAILED, explain
from .options import RESULT, Options
from .outputs import into_folder, mask_paths
from .palette import mask_colours
from .preview import preview as draw_preview
from .preview import write_png
from .progress import ProgressReport
from .sharing import ALONE, Sharing
from .summary import columns, part_lines, run_lines, share_text
from .terminal import Terminal

NO_OPTIONS = Options()


def segment(
    *images: Path,
    model: Path,
    out: Annotated[str | None, Parameter(group=RESULT, metavar="PATH")] = None,
    conduct: Annotated[Conduct, Parameter(name="*", group=RESULT)] = DEFAULT,
    sharing: Sharing = ALONE,
    preview: Annotated[Path | None, Parameter(group=RESULT, metavar="FILE|.png")] = None,
    report: Annotated[Path | None, Parameter(group=RESULT, metavar="FILE|.json")] = None,
    also: Annotated[list[Path] | None, Parameter(group=RESULT, metavar="FILE|ENDING")] = None,
    options: Options = NO_OPTIONS,
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Segment images of any size with the mask of one whole pass.

    The same command continues a run that was stopped.

    Args:
        images: Images to segment: TIFF, Zarr, DICOM, PNG and others (docs/formats.md).
        model: The network: an ONNX file, a bioimageio.yaml or its package, or with --trust-model
            TorchScript or torch.export.
        out: Folder of the mask; for several images, or with a / at its end, the folder that masks
            go into [default: slide.unet.zarr beside slide.tif].
        conduct: What to do where something is wrong.
        sharing: With which other processes.
        preview: Picture of image and mask overlaid, at most 2048 px: a file, or .png for one beside
            each mask.
        report: Figures of the run as JSON: a file, or .json for one beside each mask.
        also: The mask in another format as well, a file or an ending for one beside each mask:
            .ome.tif (pyramidal OME-TIFF), .tif (tiled, with overviews and the image's georeference)
            or .geojson (polygons for QuPath); .tiff is .tif; may be given several times.
        options: How to do it.
        terminal: Where to print.
    """
    if not images:
        raise SettingError("an image is missing; try: tile-infer slide.tif --model unet.onnx")
    companions = [
        *(companion("--report", path, [".json"]) for path in (report,) if path),
        *(companion("--also", path, SUFFIXES) for path in also or ()),
        *(companion("--preview", path, [".png"]) for path in (preview,) if path),
    ]
    part = sharing.own_part()
    if part is not None and companions:
        raise SettingError(
            f"{companions[0].option} needs the whole mask; when all parts are done, give it to the "
            "same command without --part"
        )
    settings = options.settings()
    shared = len(images) > 1 or into_folder(images, out)
    # Opened once for all, and what fails for all need not be said for each.
    opened = closing(open_network(model, **settings.of_network())) if shared else nullcontext()
    with opened as network:
        # The engine names a single mask.
        name = settings.mask_of(network.facts.name if network else model.stem)
        paths = mask_paths(images, name, out)
        check_companions(companions, images, model, name, paths)
        with sharing.crew(terminal) as crew:
            one = partial(
                segment_one,
                model=model,
                settings=settings,
                conduct=conduct,
                terminal=terminal,
                network=network,
                part=part,
                crew=crew,
            )
            if len(images) > 1:
                return _segment_all(images, paths, one, settings, companions, terminal)
            done = one(images[0], out=paths[0])
    _write_companions(companions, done, images[0], settings, terminal)
    return 0


def segment_one(
    image: Path,
    model: Path,
    out: Path | None,
    settings: Settings,
    conduct: Conduct,
    terminal: Terminal,
    network: Network | None = None,
    part: Part | None = None,
    crew: Crew = THREADS,
    title: str | None = None,
) -> Prediction:
    """Segment one image, telling the user what happens."""
    begun: list[Path] = []

    def announce(plan: Plan) -> None:
        begun.append(out or image.with_name(mask_name(image, settings.mask_of(plan.network.name))))
        for note in plan.notes:
            terminal.note(note)
        share = crew.share(plan)
        if share is not None:
            terminal.note(share_text(share))

    try:
        with ProgressReport(terminal, title or image.name) as progress:
            done = predict(
                image,
                model,
                out,
                settings,
                conduct,
                network=network,
                part=part,
                crew=crew,
                on_plan=announce,
                on_progress=progress,
            )
    except Exception:
        how = "without --overwrite continues it" if conduct.overwrite else "continues it"
        for mask in filter(Path.exists, begun):  # without a finished block it is gone
            terminal.note(
                f"{mask} is unfinished: the same command {how}, and --overwrite starts again, "
                "as it must where the image changes"
            )
        raise
    lines = run_lines if part is None else partial(part_lines, part)
    for line in lines(done.report, done.plan):
        terminal.print(line)
    return done


def _write_companions(
    companions: Sequence[Companion],
    done: Prediction,
    image: Path,
    settings: Settings,
    terminal: Terminal,
) -> None:
    """Write report, other formats and picture of a finished mask; say where they are."""
    written = []
    for each in companions:
        path = each.path(Path(done.report["mask"]))
        written.append((each.option.removeprefix("--"), str(path)))
        with failing_as(OutputError, "writing", str(path)):
            match each.suffix:
                case ".json":
                    with whole_file(path) as file:
                        file.write(f"{json.dumps(done.report, indent=2)}\n".encode())
                case ".png":
                    with closing(open_source(image, **settings.of_image())) as source:
                        colours = mask_colours(done.plan)
                        plan = done.plan
                        picture = draw_preview(source, done.group, colours, plan.level, plan.nodata)
                    write_png(path, picture)
                case _:
                    export(done, path, ExportOptions(colours=mask_colours(done.plan)))
    for line in columns(written):
        terminal.print(line)


def _segment_all(
    images: tuple[Path, ...],
    paths: list[Path | None],
    one: Callable[..., Prediction],
    settings: Settings,
    companions: Sequence[Companion],
    terminal: Terminal,
) -> int:
    """Segment several images; one that fails does not keep the others from being done."""
    failed: list[str] = []
    for number, (image, path) in enumerate(zip(images, paths, strict=True), 1):
        title = f"[{number}/{len(images)}] {image.name}"
        try:
            done = one(image, out=path, title=title)
            _write_companions(companions, done, image, settings, terminal)
        except DeviceError:
            raise
        except Exception as error:
            failed.append(str(image))
            text = explain(error).text
            terminal.error(text if str(image) in text else f"{image}: {text}")
            if terminal.verbose:
                terminal.traceback()
    terminal.print(f"{len(images) - len(failed)} of {len(images)} images done")
    if failed:
        terminal.error(f"{len(failed)} of {len(images)} images failed: {', '.join(failed)}")
    return FAILED if failed else 0
