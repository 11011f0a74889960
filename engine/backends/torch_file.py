"""Open the Torch files that hold layers as well as weights: TorchScript and exported programs."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...tiler.errors import MissingExtraError, ModelError, first_line
from ..naming import readable
from .base import NetworkFacts
from .model_file import FileKind

if TYPE_CHECKING:
    from torch import nn

    from .torch import TorchNetwork

_ORDER = "(batch, channel, y, x)"


@dataclass(frozen=True, slots=True)
class _Opened:
    """A module, and what its file says of the image that it takes."""

    module: "nn.Module"
    channels: int | None
    fixed: tuple[int | None, int | None] = (None, None)
    batch: int | None = None
    dtype: str = "float32"


def open_torch_file(path: Path, kind: FileKind, head: str | None) -> "TorchNetwork":
    """Open a file that is trusted: it can run code.

    Args:
        path: The file.
        kind: What ``file_kind`` said of it.
        head: Index of the output to use.

    Raises:
        MissingExtraError: Torch is not installed.
        ModelError: The file cannot be opened, or is no network from one image to one map.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"model {path} needs Torch: pip install torch") from error
    from .torch import TorchNetwork

    opened = _open_script(path) if kind == "torchscript" else _open_program(path)
    facts = NetworkFacts(
        name=readable(path.stem),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        backend="torch",
        channels=opened.channels,
        fixed=opened.fixed,
        batch=opened.batch,
        head=head or "0",
        ends_in="none",
        input_dtype=opened.dtype,
    )
    return TorchNetwork(opened.module, head, facts)


def _open_script(path: Path) -> _Opened:
    import torch

    try:
        with warnings.catch_warnings():
            # Torch deprecates it, but files are there.
            warnings.simplefilter("ignore", DeprecationWarning)
            script = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever is in the file
        raise ModelError(f"model {path} cannot be opened: {_cause(error)}") from error
    weights = list(script.parameters())
    dtype = next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float32)
    kernels = (weight for weight in weights if weight.ndim == 4)
    first = next(kernels, None)
    channels = None if first is None else first.shape[1]
    return _Opened(_script_module(script), channels, dtype=_name(dtype))


def _open_program(path: Path) -> _Opened:
    import torch

    try:
        program = torch.export.load(path)
        module = program.module()
    except Exception as error:  # whatever is in the file
        raise ModelError(f"model {path} cannot be opened: {_cause(error)}") from error
    names = program.graph_signature.user_inputs
    images = [
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    if len(images) != 1 or not isinstance(images[0], torch.Tensor):
        raise ModelError(
            f"model {path} has {len(images)} inputs; only networks with a single image input can "
            "be tiled"
        )
    image = images[0]
    sizes = [size if isinstance(size, int) else None for size in image.shape]
    if len(sizes) != 4:
        raise ModelError(
            f"model {path}: its input has {len(sizes)} axes; export it with an image {_ORDER}"
        )
    batch, channels, *fixed = sizes
    if fixed[1] is not None and fixed[1] <= 4 and (channels is None or channels > 4):
        raise ModelError(
            f"model {path}: its input is {' x '.join(map(str, sizes))}, with the channels last; "
            f"export it with an image {_ORDER}"
        )
    return _Opened(
        _program_module(module), channels, (fixed[0], fixed[1]), batch, _name(image.dtype)
    )


def _script_module(script: Any) -> "nn.Module":
    import torch

    class Script(torch.nn.Module):
        """TorchScript, run as it is written: what is fused is not seen, and rounds otherwise."""

        def __init__(self) -> None:
            super().__init__()
            self.script = script

        def forward(self, image: torch.Tensor) -> Any:
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                return self.script(image)

    return Script()


def _program_module(program: Any) -> "nn.Module":
    import torch

    class Program(torch.nn.Module):
        """An exported program, which refuses to be put into evaluation mode: it has none."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def train(self, mode: bool = True) -> "Program":
            return self

        def forward(self, image: torch.Tensor) -> Any:
            return self.program(image)

    return Program()


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}, {first_line(error)}"
