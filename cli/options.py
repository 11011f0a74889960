"""The options of a prediction as they are typed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Group, Parameter, Token

from ..engine.backends.device import DEVICE_NAMES, DEVICES
from ..engine.settings import Settings
from ..engine.sources.lengths import micrometers_per

T = TypeVar("T")

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

IMAGE = Group("Image", sort_key=2)
RESULT = Group("Result", sort_key=3)
TILING = Group("Tiling", sort_key=4)
MACHINE = Group("Machine", sort_key=5)


def bytes_of(text: str) -> int:
    """Return a number of bytes: ``4GB``, ``512M``, ``1.5 GiB`` or plain ``8000000000``.

    Raises:
        ValueError: It is none, or less than a megabyte.

    >>> bytes_of("4GB")
    4294967296
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is no size; write it like 4GB or 512MB")
    count = int(float(found[1]) * _UNITS[found[2].lower()])
    if count < _UNITS["m"]:  # a number whose unit was forgotten
        raise ValueError(
            f"{text!r} is {count} bytes, too few for any run; write it like 4GB or 512MB"
        )
    return count


def tile_of(text: str) -> tuple[int, int]:
    """Return height and width of a tile: ``572``, or ``572x640``.

    Raises:
        ValueError: It is neither.

    >>> tile_of("572")
    (572, 572)
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError(f"{text!r} is no tile size; write 572, or 572x640 for height x width")
    return int(found[1]), int(found[2] or found[1])


def integers_of(text: str) -> tuple[int, ...]:
    """Return ``0,1,2`` as integers.

    Raises:
        ValueError: Something between the commas is none.
    """
    return _list_of(text, int, "0,1,2")


def numbers_of(text: str) -> tuple[float, ...]:
    """Return ``0.5,0.5,0.5`` as numbers.

    Raises:
        ValueError: Something between the commas is none.
    """
    return _list_of(text, float, "0.5,0.5,0.5")


def micrometers_of(text: str) -> float:
    """Return the size of a pixel in micrometers: ``0.5``, ``0.5um``, ``30cm`` or ``0.3 m``.

    Raises:
        ValueError: It is none.

    >>> micrometers_of("30cm")
    300000.0
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([^\W\d_]*)", text.strip())
    unit = micrometers_per(found[2] or "um") if found else None
    if not found or unit is None:
        raise ValueError(
            f"{text!r} is no size of a pixel; write micrometers like 0.5, or a length like 30cm"
        )
    return float(found[1]) * unit


def nodata_of(text: str) -> float | Literal["none"]:
    """Return a pixel's value, or ``none``.

    Raises:
        ValueError: It is neither.
    """
    try:
        return "none" if text == "none" else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no value of a pixel; write a number, or none") from None


def device_of(text: str) -> str:
    """Return the name of a device, or of several.

    Raises:
        ValueError: There is no such kind of device.
    """
    if not DEVICES.fullmatch(text):
        raise ValueError(f"{text!r} is no device; use {DEVICE_NAMES}")
    return text


def _list_of(text: str, kind: Callable[[str], T], example: str) -> tuple[T, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is no list; write numbers like {example}") from None


def _typed(parse: Callable[[str], Any], metavar: str, group: Group) -> Parameter:
    def convert(_: Any, tokens: Sequence[Token]) -> Any:
        return parse(tokens[0].value)

    return Parameter(
        converter=convert, n_tokens=1, metavar=metavar, group=group, show_choices=False
    )


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``Settings`` has, one field for each of its fields, in the words of the command line."""

    axes: Annotated[str | None, Parameter(metavar="YXC", group=IMAGE)] = None
    """One letter per axis of a Zarr array that does not name them [default: told by their
    lengths]."""
    page: Annotated[int | None, Parameter(metavar="N", group=IMAGE)] = None
    """Plane of a stack, counted from 0 over the axes that --z and --t leave open."""
    series: Annotated[int | None, Parameter(metavar="N", group=IMAGE)] = None
    """Image of a file that holds several, counted from 0."""
    z: Annotated[int | None, Parameter(name="--z", metavar="N", group=IMAGE)] = None
    """Index along the axis named z."""
    t: Annotated[int | None, Parameter(name="--t", metavar="N", group=IMAGE)] = None
    """Index along the axis named t."""
    level: Annotated[int | None, Parameter(metavar="N", group=IMAGE)] = None
    """Resolution of a pyramidal image to work on, 0 being the full one [default: the one with the
    pixels that the model was trained on, if it says; else 0]."""
    mpp: Annotated[float | None, _typed(micrometers_of, "X", IMAGE)] = None
    """Micrometers per pixel, or a length such as 30cm: work on the resolution whose pixels are
    within 10 % of that."""
    mpp_image: Annotated[float | None, _typed(micrometers_of, "X", IMAGE)] = None
    """Micrometers per pixel (or a length) of the full resolution, instead of what the image
    says."""
    channels: Annotated[tuple[int, ...] | None, _typed(integers_of, "N,N,...", IMAGE)] = None
    """Channels of the image to give to the network, in this order [default: all]."""
    nodata: Annotated[float | Literal["none"] | None, _typed(nodata_of, "X", IMAGE)] = None
    """Value of the pixels that hold no data and are left out; none if only NaN does [default: what
    the image says]."""
    normalize: Annotated[
        Literal["auto", "none", "unit", "zscore", "percentile", "imagenet"] | None,
        Parameter(group=IMAGE),
    ] = None
    """How pixels are scaled: by the largest value of their type (unit), by the image's mean and
    deviation (zscore), by its percentiles, or by ImageNet's constants [default: auto, that is
    what the model says, else unit for integers and none for floats]."""
    mean: Annotated[tuple[float, ...] | None, _typed(numbers_of, "X,X,...", IMAGE)] = None
    """Mean of each channel in units of 0 to 1; replaces --normalize."""
    std: Annotated[tuple[float, ...] | None, _typed(numbers_of, "X,X,...", IMAGE)] = None
    """Standard deviation of each channel in units of 0 to 1."""

    output: Annotated[
        Literal["labels", "probabilities", "logits"] | None, Parameter(group=RESULT)
    ] = None
    """What is stored: labels, or probabilities (float16) or logits (float32) as well
    [default: labels]."""
    activation: Annotated[
        Literal["auto", "none", "sigmoid", "softmax"] | None, Parameter(group=RESULT)
    ] = None
    """What turns the network's output into probabilities [default: auto, that is softmax for two
    or more channels, sigmoid for one]."""
    threshold: Annotated[float | None, Parameter(metavar="P", group=RESULT)] = None
    """Probability above which a network of one channel says 1 [default: 0.5]."""
    max_output: Annotated[int | None, _typed(bytes_of, "SIZE", RESULT)] = None
    """Refuse to write a mask that is larger before compression, e.g. 20GB [default: what the disk
    holds]."""
    head: Annotated[str | None, Parameter(metavar="NAME", group=RESULT)] = None
    """Name or index of the network's output, where it has several."""

    trust_model: Annotated[bool | None, Parameter(group=MACHINE)] = None
    """Open a network file that can run code: TorchScript and torch.export."""

    tile: Annotated[tuple[int, int] | None, _typed(tile_of, "HxW", TILING)] = None
    """Height and width of a tile in pixels, or one number for both, for a network that takes
    several sizes."""
    halo: Annotated[int | None, Parameter(metavar="PX", group=TILING)] = None
    """Pixels to crop from each side of a tile's output, instead of the measured halo."""
    tolerance: Annotated[float | None, Parameter(metavar="X", group=TILING)] = None
    """Error of the logits, as a share of the largest, to put up with for a smaller halo."""
    blend: Annotated[Literal["hann", "gaussian", "none"] | None, Parameter(group=TILING)] = None
    """Weight of overlapping tiles; none keeps the middle of each [default: hann where the network
    cannot be tiled exactly]."""
    overlap: Annotated[float | None, Parameter(metavar="X", group=TILING)] = None
    """Share of a tile's output that overlaps its neighbour's [default: 0.5 when blending]."""
    tta: Annotated[Literal["flips", "dihedral"] | None, Parameter(group=TILING)] = None
    """Mean of the probabilities of the image and its mirror images (flips, 4 times the work), or of
    all eight ways to turn it (dihedral)."""

    device: Annotated[str | None, _typed(device_of, "NAME", MACHINE)] = None
    """Where the network runs: cpu, cuda (all GPUs), cuda:N (one), cuda:N,M (some), or auto, that is
    cuda where there is a GPU [default: auto]."""
    backend: Annotated[
        Literal["auto", "onnx", "torch", "openvino"] | None, Parameter(group=MACHINE)
    ] = None
    """Library that runs the network: onnx is ONNX Runtime; openvino runs ONNX files too, on a CPU
    [default: auto, that is onnx for an ONNX file, or openvino where it is clearly faster on a large
    image; else torch]."""
    precision: Annotated[
        Literal["fp32", "tf32", "bf16", "fp16", "fast"] | None, Parameter(group=MACHINE)
    ] = None
    """Arithmetic of the network; fp32 means fp32 on a GPU too. fast takes the fastest that changes
    at most 0.1 % of the labels of this image's most varied tiles, and says how many
    [default: fp32]."""
    compile: Annotated[bool | None, Parameter(group=MACHINE)] = None
    """Compile a Torch network before the run, with a C++ compiler."""
    batch_size: Annotated[int | None, Parameter(metavar="N", group=MACHINE)] = None
    """Tiles per run of the network."""
    workers: Annotated[int | None, Parameter(metavar="N", group=MACHINE)] = None
    """Blocks that are computed at the same time on each device [default: one per core, two on a
    GPU]."""
    memory: Annotated[int | None, _typed(bytes_of, "SIZE", MACHINE)] = None
    """Host memory that the run may use, e.g. 4GB [default: half of what is free]."""
    device_memory: Annotated[int | None, _typed(bytes_of, "SIZE", MACHINE)] = None
    """Memory of each GPU by which tiles and batch are chosen, e.g. 16GB [default: most of what is
    free]."""

    def settings(self) -> Settings:
        """Return what the engine takes.

        Raises:
            SettingError: The options contradict each other, or a value is out of range.
        """
        return Settings(**{field.name: getattr(self, field.name) for field in fields(self)})
