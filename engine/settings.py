"""What a user may ask for; ``None`` leaves it to the engine."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict

import numpy as np

from ..tiler.errors import SettingError
from .nodata import nodata_setting

_TUPLES: tuple[tuple[str, Callable[[Any], Any], int], ...] = (
    ("channels", int, 1),
    ("mean", float, 1),
    ("std", float, 1),
    ("tile", int, 2),
)
"""Settings that are tuples: what of, and how often a single number counts."""

_SCALARS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        (
            "page",
            "series",
            "z",
            "t",
            "level",
            "batch_size",
            "memory",
            "device_memory",
            "max_output",
            "workers",
            "halo",
        ),
        int,
    ),
    **dict.fromkeys(("threshold", "tolerance", "overlap", "mpp", "mpp_image"), float),
    **dict.fromkeys(("device", "head", "axes"), str),
}
"""What the other settings are."""

_CHOICES = {
    "backend": ("auto", "onnx", "torch", "openvino"),
    "precision": ("fp32", "tf32", "bf16", "fp16", "fast"),
    "normalize": ("auto", "none", "unit", "zscore", "percentile", "imagenet"),
    "activation": ("auto", "none", "sigmoid", "softmax"),
    "output": ("labels", "probabilities", "logits"),
    "blend": ("hann", "gaussian", "none"),
    "tta": ("flips", "dihedral"),
}
"""What the settings with a choice may be, for callers without a type checker."""


_RESOLVED = {"device", "precision"}
"""Settings of which a plan holds what became of them, such as ``cuda:0,1`` for ``cuda``."""


def typed(value: object, between: str = ",") -> str:
    """Return a setting as people type it.

    >>> typed((0, 1, 2)), typed(0.5)
    ('0,1,2', '0.5')
    """
    return between.join(map(str, value)) if isinstance(value, tuple) else str(value)


def _of_kind(kind: Callable[[Any], Any], name: str, value: Any) -> Any:
    """Return a value as a plain Python one: NumPy's numbers will do, text for numbers will not."""
    try:
        if kind is not str and isinstance(value, str):
            raise ValueError("text")
        plain = kind(value)
    except (TypeError, ValueError) as error:
        raise SettingError(f"{name}={value!r} is not possible; use a number") from error
    if kind is int and plain != value:
        raise SettingError(f"{name}={value!r} is not possible; use a whole number")
    return plain


class Options(TypedDict, total=False):
    """The keywords of ``predict_large``; ``Settings`` says what each means."""

    device: str | None
    backend: Literal["auto", "onnx", "torch", "openvino"] | None
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fast"] | None
    compile: bool | None
    axes: str | None
    page: int | None
    series: int | None
    z: int | None
    t: int | None
    level: int | None
    mpp: float | None
    mpp_image: float | None
    channels: tuple[int, ...] | None
    nodata: float | Literal["none"] | None
    normalize: Literal["auto", "none", "unit", "zscore", "percentile", "imagenet"] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    activation: Literal["auto", "none", "sigmoid", "softmax"] | None
    threshold: float | None
    output: Literal["labels", "probabilities", "logits"] | None
    head: str | None
    trust_model: bool | None
    tile: tuple[int, int] | None
    batch_size: int | None
    memory: int | None
    device_memory: int | None
    max_output: int | None
    workers: int | None
    halo: int | None
    tolerance: float | None
    blend: Literal["hann", "gaussian", "none"] | None
    overlap: float | None
    tta: Literal["flips", "dihedral"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Options of a prediction, the same in Python and on the command line."""

    device: str | None = None
    """Where the network runs: cpu, cuda (all GPUs), cuda:N (one), cuda:N,M (some), or auto, that is
    cuda where there is a GPU [default: auto]."""
    backend: Literal["auto", "onnx", "torch", "openvino"] | None = None
    """Library that runs the network: onnx is ONNX Runtime; openvino runs ONNX files too, on a CPU
    [default: onnx for an ONNX file, else torch]."""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fast"] | None = None
    """Arithmetic of the network; fp32 means fp32 on a GPU too; fast takes the fastest that changes
    at most 0.1 % of the labels of this image's most varied tiles [default: fp32]."""
    compile: bool | None = None
    """Whether to compile a Torch network before the run, with a C++ compiler; where that fails or
    answers otherwise, it is run without, with a warning."""
    axes: str | None = None
    """One letter per axis of an array that does not name them, e.g. CYX [default: told by their
    lengths]."""
    page: int | None = None
    """Plane of a stack, counted from 0 in stored order over the axes that z and t leave open."""
    series: int | None = None
    """Image of a file that holds several, counted from 0."""
    z: int | None = None
    """Index along the axis named z."""
    t: int | None = None
    """Index along the axis named t."""
    level: int | None = None
    """Resolution of a pyramidal image to work on, 0 being the full one [default: the one with the
    pixels that the model was trained on, if it says; else 0]."""
    mpp: float | None = None
    """Micrometers per pixel: work on the resolution whose pixels are within 10 % of that."""
    mpp_image: float | None = None
    """Micrometers per pixel of the full resolution, instead of what the image states."""
    channels: tuple[int, ...] | None = None
    """Channels of the image to give to the network, in this order [default: all]."""
    nodata: float | Literal["none"] | None = None
    """Value of the pixels that hold no data, or none where only NaN does [default: what the image
    states]."""
    normalize: Literal["auto", "none", "unit", "zscore", "percentile", "imagenet"] | None = None
    """How pixels are scaled: by the dtype's maximum (unit), by the image's mean and deviation
    (zscore), its 1st and 99.8th percentile, or ImageNet's constants [default: what the model says,
    else unit for integers and none for floats]."""
    mean: tuple[float, ...] | None = None
    """Mean per channel in units of [0, 1]; goes with std and replaces normalize."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel in units of [0, 1]."""
    activation: Literal["auto", "none", "sigmoid", "softmax"] | None = None
    """What turns the network's output into probabilities [default: softmax for two or more
    channels, sigmoid for one]."""
    threshold: float | None = None
    """Probability above which a network of one channel says 1 [default: 0.5]."""
    output: Literal["labels", "probabilities", "logits"] | None = None
    """What is stored: labels, or labels and float16 probabilities, or labels and float32 logits
    [default: labels]."""
    head: str | None = None
    """Name or index of the network's output, where it has several."""
    trust_model: bool | None = None
    """Whether a network file may be opened that can run code: TorchScript and torch.export."""
    tile: tuple[int, int] | None = None
    """Height and width of a tile in pixels, for a network that takes several sizes."""
    batch_size: int | None = None
    """Tiles per run of the network."""
    memory: int | None = None
    """Bytes of host memory that the run may use [default: half of what is free]."""
    device_memory: int | None = None
    """Bytes of each GPU's memory by which tiles and batch are chosen [default: most of what is
    free]."""
    max_output: int | None = None
    """Bytes that the mask, and what is stored besides, may have before compression [default: what
    the disk holds]."""
    workers: int | None = None
    """Blocks that are computed at the same time on each device [default: one per core; two on a
    GPU; one for a Torch module that keeps something from run to run]."""
    halo: int | None = None
    """Pixels to crop from each side of a tile's output, instead of the measured halo."""
    tolerance: float | None = None
    """Error of the logits, as a share of the largest, to put up with for a smaller halo; the mask
    is then no longer exact."""
    blend: Literal["hann", "gaussian", "none"] | None = None
    """Weight of overlapping tiles; none keeps the middle of each [default: hann where the network
    cannot be tiled exactly]."""
    overlap: float | None = None
    """Share of a tile's output that overlaps its neighbour's [default: 0.5 when blending]."""
    tta: Literal["flips", "dihedral"] | None = None
    """Test-time augmentation: the mean of the probabilities of the image and its mirror images
    (flips, 4 passes), or of all eight ways to turn it (dihedral)."""

    def __post_init__(self) -> None:
        for name, kind, length in _TUPLES:
            value = getattr(self, name)
            if value is not None:  # a list, or one number for all, will do
                values = tuple(_of_kind(kind, name, item) for item in np.atleast_1d(value).tolist())
                object.__setattr__(self, name, values * length if len(values) == 1 else values)
        for name, kind in _SCALARS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _of_kind(kind, name, value))
        for name in ("trust_model", "compile"):
            if getattr(self, name) not in (None, False, True):
                raise SettingError(f"{name}={getattr(self, name)!r} is not possible; use True")
            object.__setattr__(self, name, bool(getattr(self, name)) or None)
        if self.nodata is not None:
            object.__setattr__(self, "nodata", nodata_setting(self.nodata))
        for name, values in _CHOICES.items():
            if getattr(self, name) not in (None, *values):
                raise SettingError(
                    f"{name}={getattr(self, name)!r} is unknown; use {', '.join(values)}"
                )
        rules = (
            (self.threshold is None or 0 < self.threshold < 1, "threshold", "0 < threshold < 1"),
            (self.batch_size is None or self.batch_size > 0, "batch_size", "1 or more"),
            (self.workers is None or self.workers > 0, "workers", "1 or more"),
            (self.halo is None or self.halo >= 0, "halo", "0 or more"),
            (self.tolerance is None or 0 < self.tolerance < 1, "tolerance", "0 < tolerance < 1"),
            (self.overlap is None or 0 <= self.overlap < 1, "overlap", "0 <= overlap < 1"),
            (self.memory is None or self.memory > 0, "memory", "a number of bytes above 0"),
            (
                self.device_memory is None or self.device_memory > 0,
                "device_memory",
                "bytes above 0",
            ),
            (self.max_output is None or self.max_output > 0, "max_output", "bytes above 0"),
            (self.level is None or self.level >= 0, "level", "0 or more"),
            (self.mpp is None or 0 < self.mpp < np.inf, "mpp", "micrometers above 0"),
            (
                self.mpp_image is None or 0 < self.mpp_image < np.inf,
                "mpp_image",
                "micrometers above 0",
            ),
            (
                self.tile is None or (len(self.tile) == 2 and min(self.tile) > 0),
                "tile",
                "height and width, 1 px or more",
            ),
            (self.channels is None or min(self.channels, default=-1) >= 0, "channels", "0, 1, ..."),
            (self.std is None or min(self.std, default=0) > 0, "std", "values above 0"),
        )
        for holds, name, rule in rules:
            if not holds:
                value = typed(getattr(self, name), "x" if name == "tile" else ",")
                raise SettingError(f"{name}={value} is not possible; use {rule}")
        if (self.mean is None) != (self.std is None):
            raise SettingError("mean and std go together; give both or neither")
        if self.mean is not None and self.normalize not in (None, "auto"):
            raise SettingError(
                f"normalize={self.normalize} and mean/std contradict; give one of them"
            )
        if self.mpp is not None and self.level is not None:
            raise SettingError("mpp and level contradict: both say which resolution; give one")
        if self.halo is not None and self.tolerance is not None:
            raise SettingError("halo and tolerance contradict: both say how much to crop; give one")
        if self.overlap is not None and self.blend is None:
            raise SettingError(
                "overlap needs blend: an exact mask has no overlap; give blend as well"
            )
        if self.tta is not None and self.output == "logits":
            raise SettingError(
                f"tta={self.tta} averages probabilities, so output=logits has no meaning; "
                "use output=probabilities"
            )
        if self.tta == "dihedral" and self.tile and self.tile[0] != self.tile[1]:
            raise SettingError(
                f"tta=dihedral transposes tiles, so they are square; got {self.tile[0]} x "
                f"{self.tile[1]} px"
            )
        if self.blend is not None and (self.halo is not None or self.tolerance is not None):
            raise SettingError(
                f"blend={self.blend} keeps the whole output, so halo and tolerance contradict it; "
                "leave blend out, or both of them"
            )

    def of_image(self) -> dict[str, Any]:
        """Return the keywords for ``open_source``: which image of a file, and which plane of it."""
        names = ("axes", "page", "series", "z", "t")
        return {name: getattr(self, name) for name in names}

    def of_network(self) -> dict[str, Any]:
        """Return the keywords for ``open_network``: which output, and whether to trust the file."""
        return {"head": self.head, "trust_model": bool(self.trust_model)}

    def mask_of(self, model: str) -> str:
        """Return a model's name behind what is chosen of the image, for the name of the mask.

        >>> Settings(z=1, t=0).mask_of("unet"), Settings().mask_of("unet")
        ('z1.t0.unet', 'unet')
        """
        names = ("series", "page", "z", "t", "level", "mpp")
        values = [(name, getattr(self, name)) for name in names]
        chosen = [f"{name}{value:g}" for name, value in values if value is not None]
        return ".".join([*chosen, model])

    def given(self) -> dict[str, object]:
        """Return what was asked for."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) not in (None, "auto")
        }

    def resolved(self, **values: object) -> "Settings":
        """Return the settings with what the engine chose for those left open."""
        open_names = {*values} - {*self.given()} | {*values} & _RESOLVED
        left_open: dict[str, object] = {name: values[name] for name in open_names}
        if self.halo is not None or self.tolerance is not None:
            left_open |= {"blend": None, "overlap": None}  # blended after all, but not as asked
        return replace(self, **left_open)  # type: ignore[arg-type]
