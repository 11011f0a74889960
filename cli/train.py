"""`tile-infer train`: a network from images and their labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from ..engine.backends.metadata import NORMALIZATIONS, Metadata
from ..engine.training.augmentation import Augmentation, Rotation
from ..engine.training.extras import require_extras
from ..engine.training.objects import LabelKind
from ..engine.training.reading import OF_THE_SET
from ..engine.training.settings import LossName, Optimizer, Schedule, TrainingSettings
from ..engine.training.weight_map import WeightMap
from ..tiler.errors import OutputError, SettingError
from .export import write_onnx
from .options import MACHINE
from .summary import columns
from .terminal import Terminal
from .training_progress import TrainingReport

if TYPE_CHECKING:
    from ..engine.training.history import Row
    from ..engine.training.pairs import Pair
    from ..engine.training.progress import Progress
    from ..engine.training.trainer import Trained

DATA = Group("Data", sort_key=2)
RECIPE = Group("Recipe", sort_key=3)
VARIATION = Group("Variation", sort_key=4)


def train(
    images: str,
    labels: str,
    /,
    *,
    network: str,
    out: Path,
    overwrite: bool = False,
    label_kind: Annotated[LabelKind | None, Parameter(group=DATA)] = None,
    classes: Annotated[str | None, Parameter(group=DATA, metavar="NAME,NAME,...")] = None,
    validation: Annotated[float, Parameter(group=DATA, metavar="SHARE")] = 0.2,
    normalize: Annotated[str, Parameter(group=DATA, metavar="MODE")] = OF_THE_SET,
    width: Annotated[int | None, Parameter(group=RECIPE, metavar="N")] = None,
    option: Annotated[tuple[str, ...], Parameter(group=RECIPE, metavar="KEY=VALUE")] = (),
    tile: Annotated[int, Parameter(group=RECIPE, metavar="PX")] = 572,
    steps: Annotated[int, Parameter(group=RECIPE, metavar="N")] = 2000,
    batch: Annotated[int, Parameter(group=RECIPE, metavar="N")] = 1,
    optimizer: Annotated[Optimizer, Parameter(group=RECIPE)] = "sgd",
    rate: Annotated[float | None, Parameter(group=RECIPE, metavar="X")] = None,
    schedule: Annotated[Schedule, Parameter(group=RECIPE)] = "cosine",
    loss: Annotated[LossName, Parameter(group=RECIPE)] = "cross_entropy",
    gap_weight: Annotated[float, Parameter(group=RECIPE, metavar="W0")] = 10.0,
    gap_sigma: Annotated[float, Parameter(group=RECIPE, metavar="PX")] = 5.0,
    balance: Annotated[float, Parameter(group=RECIPE, metavar="X")] = 1.0,
    validate_every: Annotated[int, Parameter(group=RECIPE, metavar="N")] = 100,
    patience: Annotated[int | None, Parameter(group=RECIPE, metavar="N")] = None,
    seed: Annotated[int, Parameter(group=RECIPE, metavar="N")] = 0,
    elastic: Annotated[float, Parameter(group=VARIATION, metavar="PX")] = 10.0,
    rotation: Annotated[Rotation, Parameter(group=VARIATION)] = "free",
    shift: Annotated[int, Parameter(group=VARIATION, metavar="PX")] = 32,
    contrast: Annotated[float, Parameter(group=VARIATION, metavar="X")] = 0.15,
    brightness: Annotated[float, Parameter(group=VARIATION, metavar="X")] = 0.15,
    colour: Annotated[float, Parameter(group=VARIATION, metavar="X")] = 0.05,
    no_flip: Annotated[bool, Parameter(group=VARIATION)] = False,
    minutes: Annotated[float | None, Parameter(group=MACHINE, metavar="X")] = None,
    threads: Annotated[int | None, Parameter(group=MACHINE, metavar="N")] = None,
    device: Annotated[str, Parameter(group=MACHINE, metavar="NAME")] = "cpu",
    terminal: Annotated[Terminal, Parameter(parse=False)],
) -> int:
    """Train a network on images and label images, and export it as ONNX.

    The same command continues a training that was stopped. Beside the ONNX file lie its checkpoint
    (.pt) and the curves of the training (.csv and .png).

    Args:
        images: Folder of images, or a pattern such as 'train/*.tif'.
        labels: Folder of label images, or a pattern; paired with the images by name.
        network: unet, unet_wide, unetpp, unetp, unete, fcn32s, fcn16s or fcn8s.
        out: The ONNX file to write.
        overwrite: Start anew where a training was stopped or finished.
        label_kind: What the numbers of the labels are: binary (anything but 0), class, or instance
            (objects) [default: binary, if there are no more than two values].
        classes: Name of each class, the background first.
        validation: Share of the images that is only measured on [default: 0.2].
        normalize: How pixels are normalised: dataset (mean and deviation of all images), none,
            unit, zscore, percentile or imagenet [default: dataset].
        width: Channels of the first level [default: the paper's].
        option: Another option of the network, such as padding=same or batch_norm=true; may be given
            several times.
        tile: Largest side of a tile that the network is fed [default: 572].
        steps: How often the weights are changed [default: 2000].
        batch: Tiles per step [default: 1].
        optimizer: SGD with momentum 0.99, or Adam [default: sgd].
        rate: Learning rate [default: 0.001].
        schedule: Whether the rate falls along a cosine or stays [default: cosine].
        loss: Weighted cross-entropy, or hybrid: with soft Dice in addition
            [default: cross_entropy].
        gap_weight: Weight of the narrowest gaps between objects; 0 for none [default: 10].
        gap_sigma: Width of the gaps that weigh more [default: 5].
        balance: From 0, all pixels alike, to 1, all classes alike [default: 1].
        validate_every: Steps between two checkpoints [default: 100].
        patience: End after so many checkpoints without a better result [default: never].
        seed: Of everything random [default: 0].
        elastic: Standard deviation of the elastic deformation; 0 for none [default: 10].
        rotation: By any angle, by quarter turns, or not at all [default: free].
        shift: How far a tile may reach beyond its image [default: 32].
        contrast: How much the contrast varies [default: 0.15].
        brightness: How much the brightness varies [default: 0.15].
        colour: How much contrast and brightness of each channel vary besides [default: 0.05].
        no_flip: Leave tiles unmirrored.
        minutes: Stop at the first checkpoint after so long; the same command continues.
        threads: CPU threads.
        device: cpu, cuda, cuda:N or auto [default: cpu].
        terminal: Where to print.
    """
    require_extras()
    from ..engine.backends.device import resolve_device
    from ..engine.networks.registry import options_of
    from ..engine.training.history import write_csv, write_curves
    from ..engine.training.images import class_counts
    from ..engine.training.pairs import pairs_of
    from ..engine.training.reading import held_out, kind_of, labelled, metadata_of, read_pairs
    from ..engine.training.trainer import Subject
    from ..engine.training.trainer import train as run

    settings = TrainingSettings(
        steps=steps,
        optimizer=optimizer,
        rate=rate,
        schedule=schedule,
        batch=batch,
        tile=tile,
        loss=loss,
        weight_map=WeightMap(gap_weight, gap_sigma, balance),
        augmentation=Augmentation(
            shift_px=shift,
            rotation=rotation,
            flip=not no_flip,
            elastic_px=elastic,
            contrast=contrast,
            brightness=brightness,
            colour=colour,
        ),
        validate_every=validate_every,
        patience=patience,
        minutes=minutes,
        seed=seed,
        threads=threads,
        device=resolve_device(device),
    )
    _check_normalize(normalize)
    more = options_of(network, option)
    _check_options(more)
    if width is not None:
        more["width"] = width
    _check_out(out, overwrite)
    pairs, how = pairs_of(images, labels)
    _check_apart(out, pairs)
    terminal.note(f"{len(pairs)} images, {how}")
    raw = read_pairs(pairs)
    kind = label_kind or kind_of(raw.labels)
    constants = metadata_of(raw, normalize)
    every = labelled(raw, kind, constants)
    raw.labels.clear()  # kept as classes and objects
    names = _names(classes, max(int(image.truth.classes.max()) for image in every))
    class_counts(every, names)
    learn, measure = held_out(every, validation, seed)
    terminal.note(f"labels are {kind}; classes {', '.join(names)}")
    if measure:
        terminal.note(
            f"measured on {', '.join(image.name for image in measure)}; never learnt from"
        )
    else:
        terminal.note("no image is left to measure on: the last weights are exported")
    options = {"in_channels": raw.pixels[0].shape[2], "classes": len(names), **more}
    subject = Subject(network, options, names, Metadata(classes=names, **constants))
    checkpoint = out.with_suffix(".pt")
    if overwrite:  # only now that the new training can begin
        checkpoint.unlink(missing_ok=True)
    drawn = 0

    def draw(rows: "Sequence[Row]") -> None:
        nonlocal drawn
        drawn = len(rows)
        write_csv(out.with_suffix(".csv"), rows)
        write_curves(out.with_suffix(".png"), rows)

    def told(progress: "Progress") -> None:
        report(progress)
        if len(progress.rows) > drawn:
            draw(progress.rows)

    with TrainingReport(terminal, network) as report:
        trained = run(subject, learn, measure, settings, checkpoint, told)
    if report.first is None:
        draw(trained.rows)  # they may be gone
        terminal.note("nothing was left to train; more --steps go on, --overwrite begins anew")
    write_onnx(trained.network, out, None, {"classes": names, **constants})
    for line in _lines(out, trained, steps):
        terminal.print(line)
    return 0


def _check_normalize(normalize: str) -> None:
    known = (OF_THE_SET, *NORMALIZATIONS)
    if normalize not in known:
        raise SettingError(f"normalize={normalize} is none of {', '.join(known)}")


def _check_options(more: dict[str, Any]) -> None:
    for name, source in (("in_channels", "images"), ("classes", "labels")):
        if name in more:
            raise SettingError(f"option {name} is what the {source} say; leave it out")


def _written(out: Path) -> list[Path]:
    """Return the files of a training: the network, its checkpoint and the curves."""
    return [out, *(out.with_suffix(ending) for ending in (".pt", ".csv", ".png"))]


def _check_out(out: Path, overwrite: bool) -> None:
    if out.suffix != ".onnx":
        raise SettingError(f"out={out} must end in .onnx")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} does not exist; create it or choose another place")
    continued = overwrite or out.with_suffix(".pt").exists()
    for path in _written(out):
        if path.is_dir():
            raise OutputError(f"{path} is a folder; choose another place with out")
        if path.exists() and not continued:
            raise OutputError(f"{path} exists; choose another place with out, or use overwrite")


def _check_apart(out: Path, pairs: "Sequence[Pair]") -> None:
    """Refuse to write over what is learnt from."""
    learnt_from = {path.resolve() for pair in pairs for path in pair}
    for path in _written(out):
        if path.resolve() in learnt_from:
            raise OutputError(f"{path} is learnt from; choose another place with out")


def _names(given: str | None, last: int) -> tuple[str, ...]:
    if given is not None:
        names = tuple(name.strip() for name in given.split(","))
        if len(names) < 2:
            raise SettingError("classes are two or more names, the background first")
        if "" in names or len(set(names)) < len(names):
            raise SettingError(f"each class needs a name of its own; got {given}")
        return names
    if last <= 1:
        return "background", "object"
    return "background", *(f"class {number}" for number in range(1, last + 1))


def _lines(out: Path, trained: "Trained", steps: int) -> Sequence[str]:
    last = trained.rows[-1]
    done = f"{last.step} of {max(steps, last.step)} steps, {last.seconds:.0f} s"
    if last.step > steps:
        done += f"; --steps {steps} was passed already"
    elif not trained.finished:
        done += "; the time is up, and the same command continues"
    elif last.step < steps:
        done += "; the validation images got no better"
    facts = [("training", done)]
    best = next(row for row in trained.rows if row.step == trained.best_step)
    if best.dice == best.dice:  # no NaN
        facts.append(
            (
                "best",
                f"step {best.step}: Dice {best.dice:.3f}, IoU {best.iou:.3f}, "
                f"pixel error {best.pixel_error:.4f} on the validation images",
            )
        )
    tile = trained.tile
    facts += [
        ("tiles", f"{tile.input_px} px in, {tile.output_px} px out"),
        ("beside it", f"{out.stem}.pt, {out.stem}.csv, {out.stem}.png"),
    ]
    return [str(out), *columns(facts)]
