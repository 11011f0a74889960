"""`tile-infer IMAGE... --model MODEL`: the main job."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..engine.backends import Network, open_network
from ..engine.backends.shared import SharedNetwork
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
from ..engine.url import Location, located
from ..tiler.errors import OutputError, SettingError, failing_as
from .companions import Companion, check_companions, companion
from .images import images_of
from .options import RESULT, Options
from .outputs import into_folder, mask_paths
from .palette import mask_colours
from .preview import preview as draw_preview
from .preview import write_png
from .progress import ProgressReport
from .several import segment_all
from .sharing import ALONE, Sharing
from .summary import columns, part_lines, run_lines, share_text
from .terminal import Terminal

NO_OPTIONS = Options()


def segment(
    *images: str,
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
        images: Images to segment: TIFF, Zarr, DICOM, PNG and others (docs/formats.md); folders of
            them, or patterns such as '*.svs'; TIFF and Zarr also at s3://, gs:// and http(s)://.
        model: The network: an ONNX file, a bioimageio.yaml or its package, or with --trust-model
            TorchScript or torch.export.
        out: Folder of the mask, or a place at s3:// or gs://; for several images, or with a / at
            its end, the folder that masks go into [default: slide.unet.zarr beside slide.tif].
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
    found, notes = images_of([located(image) for image in images])
    for note in notes:
        terminal.note(note)
    several = len(found) > 1 or bool(notes)
    # Opened once for all, and what fails for all need not be said for each.
    opened: AbstractContextManager[Network | None] = nullcontext()
    if several or into_folder(several, out):
        opened = closing(SharedNetwork(open_network(model, **settings.of_network())))
    with opened as network:
        # The engine names a single mask.
        name = settings.mask_of(network.facts.name if network else model.stem)
        paths = mask_paths(found, name, out, several=several)
        check_companions(companions, found, model, name, paths)

        def one(
            image: Location, out: Location | None, crew: Crew, title: str | None = None
        ) -> Prediction:
            done = segment_one(
                image, model, out, settings, conduct, terminal, network, part, crew, title
            )
            _write_companions(companions, done, image, settings, terminal)
            return done

        with sharing.crew(terminal) as crew:
            if several:
                return segment_all(found, paths, one, crew, terminal)
            one(found[0], paths[0], crew)
    return 0


def segment_one(
    image: Location,
    model: Path,
    out: Location | None,
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
        mask = out or image.with_name(mask_name(image, settings.mask_of(plan.network.name)))
        if isinstance(mask, Path):
            begun.append(mask)
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
    image: Location,
    settings: Settings,
    terminal: Terminal,
) -> None:
    """Write report, other formats and picture of a finished mask; say where they are."""
    written = []
    for each in companions:
        path = each.path(located(done.report["mask"]))
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
