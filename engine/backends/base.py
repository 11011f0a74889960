"""What the engine asks of a network: facts, raw logits to probe, and a runner for tiles."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .declared import Declared
from .preprocessing import Preprocessing

Activation = Literal["none", "sigmoid", "softmax"]
Ending = Literal["none", "sigmoid", "softmax", "argmax"]
Scores = Literal["probabilities", "logits"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Backend = Literal["onnx", "torch", "openvino"]
Form = Literal["module", "graph", "compiled"]


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What a network says of itself."""

    name: str
    """File name without suffix, or the module's class."""
    sha256: str
    """Hash of the file, or of the module's parameters."""
    backend: str
    """``onnx`` or ``torch``: what it is a network of, and runs it unless another is chosen."""
    channels: int | None
    """Input channels; ``None`` where any number will do."""
    fixed: tuple[int | None, int | None]
    """Tile height and width in pixels where the file fixes them."""
    batch: int | None
    """Number of tiles per run where the file fixes it."""
    head: str
    """Name of the output that is used."""
    ends_in: Ending
    """What the network does last; it is cut off, so that logits come out."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, where the model's metadata has them."""
    normalize: str | None = None
    """Normalisation that the model's metadata asks for."""
    mean: tuple[float, ...] | None = None
    """Mean per channel that the metadata asks for, in units of ``[0, 1]``."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel that the metadata asks for, in units of ``[0, 1]``."""
    activation: Activation | None = None
    """What the metadata says turns the output into probabilities."""
    class_colours: tuple[tuple[int, int, int], ...] = ()
    """Red, green and blue of the classes, where the metadata has them."""
    pixel_size: tuple[float, float] | None = None
    """Height and width in micrometers of the pixels that the network was trained on."""
    input_dtype: str = "float32"
    """Type of the image input; one of whole numbers is given the raw pixels."""
    tile_dependent: tuple[str, ...] = ()
    """Parts whose answer depends on the tile's size, such as an instance normalisation."""
    percentiles: tuple[float, float] | None = None
    """Percentiles that ``normalize`` = ``percentile`` turns into 0 and 1, where the metadata has
    others than the usual."""
    threshold: float | None = None
    """Probability above which the metadata lets a single-channel network say 1."""
    preprocessing: Preprocessing | None = None
    """What a description beside the file does to the pixels, instead of ``normalize``."""
    declared: Declared | None = None
    """What a description says of sizes, margin and halo."""
    origins: tuple[tuple[str, str], ...] = ()
    """Fields above that the metadata has set, and who says so: ``the model``, or a file's name."""
    remarks: tuple[str, ...] = ()
    """What the user should know of how the metadata was understood."""
    doubts: tuple[str, ...] = ()
    """What the user should be warned of: metadata that was not read, or cannot be followed."""

    def says(self, name: str) -> str:
        """Return who has set a field, as in ``as the model says``."""
        return f"as {dict(self.origins).get(name, 'the model')} says"


@dataclass(frozen=True, slots=True)
class Layer:
    """One convolution or matrix product in a run over one tile."""

    multiply_adds: int
    """Multiplications with addition."""
    height: int
    """Height of the result in its own pixels."""
    width: int
    """Width of the result in its own pixels."""
    bytes: int
    """Size of the result in 32-bit floats."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that happens on the device around the network: raw pixels in, labels out."""

    dtype: str
    """Type of the raw pixels."""
    channels: int
    """Channels of the raw pixels."""
    tile: tuple[int, int]
    """Height and width of a tile in pixels."""
    offset: tuple[float, ...]
    """Per channel: subtracted from the raw pixels."""
    scale: tuple[float, ...]
    """Per channel: multiplied after that."""
    crop: tuple[int, int]
    """First row and column of the output that are kept."""
    window: tuple[int, int]
    """Height and width of what is kept, in pixels."""
    ends_in: Ending
    """What the network does last, and what is therefore left out."""
    classes: int
    """Output channels of the network."""
    activation: Activation
    """What turns its logits into probabilities."""
    threshold: float
    """Probability above which a single-channel network says 1."""
    labels: bool
    """Whether labels are wanted."""
    scores: Scores | None
    """Whether probabilities or logits are wanted."""
    scores_dtype: str = "float32"
    """Type of the scores."""
    clip: tuple[float | None, float | None] = (None, None)
    """Smallest and largest normalised number; what lies beyond becomes it."""

    @property
    def not_computed(self) -> int:
        """Label of a pixel for which the network gave no number."""
        return np.iinfo(self.label_dtype).max

    @property
    def label_dtype(self) -> str:
        """Smallest type that holds the labels and ``not_computed``."""
        return "uint8" if self.classes <= 255 else "uint16"

    @property
    def arithmetic(self) -> str:
        """Type that holds every raw value: ``float32`` up to 24 bits, else ``float64``."""
        narrow = np.can_cast(self.dtype, np.float32)
        return "float32" if narrow else "float64"

    @property
    def normalizes(self) -> bool:
        """Whether the raw pixels are changed at all."""
        scaled = any(self.offset) or any(scale != 1 for scale in self.scale)
        return scaled or self.clip != (None, None)

    @property
    def logit_threshold(self) -> float:
        """The threshold in the units of the logits."""
        if self.activation == "none":
            return self.threshold
        return float(np.log(self.threshold) - np.log1p(-self.threshold))


@dataclass(frozen=True, slots=True)
class Execution:
    """Where, and how finely, a network runs."""

    device: str
    """``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Precision = "fp32"
    """Arithmetic of the network."""
    threads: int = 1
    """CPU threads that one run uses."""
    workers: int = 1
    """Runs at the same time."""
    backend: Backend = "onnx"
    """Library that runs it."""
    form: Form = "module"
    """What of a Torch network runs: the module, the graph of its operators, or that compiled."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a runner returns for a batch of tiles."""

    labels: NDArray[np.generic] | None
    """``(batch, y, x)``; ``Recipe.not_computed`` where the network gave NaN or infinity."""
    scores: NDArray[np.floating] | None
    """``(batch, class, y, x)``."""
    less: tuple[int, int, int] | None = None
    """Height and width of the tiles that were run, and how many at once, where memory did not
    suffice for those that were given."""


class Runner(Protocol):
    """A network on its device, inside its recipe. May be called from several threads at once."""

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        """Run raw pixels ``(batch, y, x, channel)``."""
        ...


class Network(Protocol):
    """A loaded network."""

    @property
    def facts(self) -> NetworkFacts:
        """Facts about the network."""
        ...

    def takes(self, channels: int) -> bool:
        """Say whether the network can be given so many channels."""
        ...

    def logits(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run normalised tiles ``(batch, channel, y, x)``; return ``(batch, class, y, x)``."""
        ...

    def layers(self, channels: int, tile: tuple[int, int]) -> tuple[Layer, ...]:
        """Return the work of one run over a tile, layer by layer."""
        ...

    def form(self, recipe: Recipe, wanted: Execution) -> tuple[Form, str]:
        """Return the quickest form that it can be run in, and why it is not the one wanted."""
        ...

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        """Return a runner.

        Raises:
            DeviceError: The device or precision cannot be had.
            MissingExtraError: The library that is to run it is not installed.
        """
        ...

    def close(self) -> None:
        """Leave everything as it was found."""
        ...
