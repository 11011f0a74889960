"""Run a network given as a Torch module."""

import hashlib
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...tiler.errors import DeviceError, ModelError
from .base import Ending, Execution, Layer, NetworkFacts, Output, Recipe, Runner

_ENDINGS: dict[str, Ending] = {
    "sigmoid": "sigmoid",
    "_softmax": "softmax",
    "_log_softmax": "softmax",
    "argmax": "argmax",
    "max": "argmax",
}
_SAME = {"_to_copy", "squeeze", "unsqueeze", "view", "clone", "alias", "detach"}


class TorchNetwork:
    """A network from an ``nn.Module``; it is left as it was found by ``close``."""

    def __init__(self, module: nn.Module, head: str | None = None) -> None:
        if head is not None and not head.isdigit():
            raise ModelError(f"head={head!r}: a torch module's outputs are chosen by index")
        self.module = module
        self.index = None if head is None else int(head)
        self._training = [part for part in module.modules() if part.training]
        self._device = _device_of(module)
        self._threads = torch.get_num_threads()
        self._tf32: tuple[bool, bool] | None = None
        # A module may keep things on itself while it runs (hooks do): one run at a time.
        self._running = Lock()
        self._facts = NetworkFacts(
            name=type(module).__name__.lower(),
            sha256=_hash(module),
            backend="torch",
            channels=None,
            fixed=(None, None),
            batch=None,
            head=head or "0",
            ends_in="none",
        )
        module.eval()
        try:
            self._facts = replace(self._facts, channels=self._find_channels())
        except BaseException:
            self.close()
            raise

    def _find_channels(self) -> int | None:
        """Return the input channels of the first convolution, if the module runs with as many."""
        first = next((part for part in self.module.modules() if isinstance(part, nn.Conv2d)), None)
        return first.in_channels if first and self.takes(first.in_channels) else None

    def takes(self, channels: int) -> bool:
        """Say whether the module runs with so many channels, at one of three usual sizes."""
        for size in (64, 256, 576):
            with suppress(Exception), torch.no_grad():  # any refusal is as good
                self.module(torch.zeros(1, channels, size, size, device=self._device))
                return True
        return False

    @property
    def facts(self) -> NetworkFacts:
        """Facts about the network."""
        return self._facts

    def close(self) -> None:
        """Leave the module and Torch's settings as they were found."""
        for part in self._training:
            part.training = True
        if _device_of(self.module) != self._device:
            self.module.to(self._device)
        torch.set_num_threads(self._threads)
        if self._tf32 is not None:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._tf32

    def _allow_tf32(self, allowed: bool) -> None:
        if self._tf32 is None:
            convolutions = torch.backends.cudnn.allow_tf32
            self._tf32 = convolutions, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run the module; return the chosen output."""
        with self._running:
            found = self.module(images)
        if isinstance(found, dict):
            found = list(found.values())
        if isinstance(found, list | tuple):
            if self.index is None and len(found) > 1:
                raise ModelError(
                    f"the module returns {len(found)} outputs; choose one with head=INDEX"
                )
            if (self.index or 0) >= len(found):
                raise ModelError(f"head={self.index}: the module returns {len(found)} outputs")
            found = found[self.index or 0]
        if not isinstance(found, torch.Tensor):
            raise ModelError(f"the module returns {type(found).__name__}, not a tensor")
        return found

    def logits(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run normalised tiles ``(batch, channel, y, x)``; return ``(batch, class, y, x)``."""
        if self._device.type == "cuda":
            self._allow_tf32(False)
        recorder = _Recorder()
        with torch.no_grad(), recorder:
            found = self.forward(torch.from_numpy(tiles).to(_device_of(self.module)))
        ends_in, logits = recorder.before_activation(found)
        if not logits.is_floating_point():
            raise ModelError(
                f"the module returns {str(logits.dtype).removeprefix('torch.')}, and no argmax was "
                "seen to make it; let it return logits"
            )
        self._facts = replace(self._facts, ends_in=ends_in)
        result: NDArray[np.float32] = logits.float().cpu().numpy()
        return result

    def layers(self, channels: int, tile: tuple[int, int]) -> tuple[Layer, ...]:
        """Return the work of one run over a tile."""
        recorder = _Recorder()
        zeros = torch.zeros(1, channels, *tile, device=_device_of(self.module))
        with torch.no_grad(), recorder:
            self.forward(zeros)
        return tuple(recorder.layers)

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        """Return a runner that moves raw pixels to the device and labels back."""
        device = torch.device(execution.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                f"device={execution.device}: this torch has no CUDA; install a CUDA build of it, "
                "or use device=cpu"
            )
        if execution.precision == "tf32" and device.type == "cpu":
            raise DeviceError("precision=tf32 exists on NVIDIA GPUs only; use fp32 on the CPU")
        if device.type == "cuda":
            self._allow_tf32(execution.precision == "tf32")
        if _device_of(self.module) != device:
            self.module.to(device)
        return _TorchRunner(self, recipe, execution, device)


class _TorchRunner:
    def __init__(
        self, network: TorchNetwork, recipe: Recipe, execution: Execution, device: torch.device
    ) -> None:
        self.network, self.recipe, self.execution, self.device = network, recipe, execution, device
        per_channel = (1, recipe.channels, 1, 1)
        # What has more digits than float32 loses them only once it is centred.
        self.exact = getattr(torch, recipe.arithmetic)
        options = {"dtype": self.exact, "device": device}
        self.offset = torch.tensor(recipe.offset, **options).reshape(per_channel)
        self.scale = torch.tensor(recipe.scale, **options).reshape(per_channel)
        self.label_type = getattr(torch, recipe.label_dtype)

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        if self.device.type == "cpu":
            torch.set_num_threads(self.execution.threads)
        recipe = self.recipe
        # An activation at the end is undone by taking its input, at the price of watching each
        # operator; a network that ends in logits is run as it is.
        recorder = None if recipe.ends_in == "none" else _Recorder()
        # no_grad: what a module keeps of an inference_mode run could not be trained with later.
        with torch.no_grad():
            images = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device)
            images = images.permute(0, 3, 1, 2)
            if recipe.normalizes:
                images = (images.to(self.exact) - self.offset) * self.scale
                if recipe.clip != (None, None):
                    images = images.clamp(*recipe.clip)
            images = images.float().contiguous()
            with self._arithmetic(), recorder or nullcontext():
                logits = self.network.forward(images)
            if recorder:
                logits = recorder.before_activation(logits)[1]
            (y, x), (height, width) = recipe.crop, recipe.window
            logits = logits[:, :, y : y + height, x : x + width].float()
            labels = self._labels(logits).cpu().numpy() if recipe.labels else None
            scores = self._scores(logits).cpu().numpy() if recipe.scores else None
        return Output(labels, scores)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        types = {"bf16": torch.bfloat16, "fp16": torch.float16}
        if self.execution.precision not in types:
            return nullcontext()
        return torch.autocast(self.device.type, types[self.execution.precision])

    def _labels(self, logits: torch.Tensor) -> torch.Tensor:
        if self.recipe.classes == 1:
            labels = (logits[:, 0] > self.recipe.logit_threshold).to(torch.uint8)
        else:
            # A running maximum: argmax along the channels is 50 times slower on a CPU.
            best = logits[:, 0]
            # Torch can do little with uint16.
            kind = torch.uint8 if self.label_type == torch.uint8 else torch.int32
            labels = torch.zeros(best.shape, dtype=kind, device=best.device)
            for index in range(1, self.recipe.classes):
                labels.masked_fill_(logits[:, index] > best, index)
                best = torch.maximum(best, logits[:, index])
        # NaN and infinity times zero are NaN, and a sum hands NaN on: one pass finds both.
        broken = (logits * 0).sum(dim=1).isnan()
        return labels.masked_fill_(broken, self.recipe.not_computed).to(self.label_type)

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        scores = logits
        if self.recipe.scores == "probabilities":
            if self.recipe.activation == "sigmoid":
                scores = logits.sigmoid() + logits * 0  # NaN for infinity, which sigmoid hides
            elif self.recipe.activation == "softmax":
                scores = logits.softmax(dim=1) + logits * 0
        return scores.to(getattr(torch, self.recipe.scores_dtype))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches a run: what each tensor was made from, and the work of each layer.

    Not for ``inference_mode``, under which operators come by before they are broken down into the
    few that are looked for here.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: dict[int, tuple[str, torch.Tensor, torch.Tensor]] = {}
        self.layers: list[Layer] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")  # sigmoid_ is sigmoid, in place
        source = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if source is not None and name in _ENDINGS and func._schema.is_mutable:
            source = source.clone()
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable and name not in _ENDINGS:
            self._forget_changed(func, args)
        if name == "convolution":
            self.layers.append(_layer(args, result))
        elif source is not None and (name in _SAME or _over_classes(name, args)):
            made = result[1] if isinstance(result, tuple) else result  # max: values and indices
            # The result is kept too, so that its id stays its own.
            self.made[id(made)] = (name, source, made)
        return result

    def _forget_changed(self, func: Any, args: tuple[Any, ...]) -> None:
        """Forget what tensors were made from that an operator writes into, also through a view."""
        written = {
            given.untyped_storage().data_ptr()
            for given, wanted in zip(args, func._schema.arguments, strict=False)
            if isinstance(given, torch.Tensor) and wanted.alias_info and wanted.alias_info.is_write
        }
        for key, (_, _, made) in list(self.made.items()):
            if made.untyped_storage().data_ptr() in written:
                del self.made[key]

    def before_activation(self, found: torch.Tensor) -> tuple[Ending, torch.Tensor]:
        """Return the final activation and the tensor it was given.

        Of an argmax over a softmax, the softmax and its input.
        """
        ending: Ending = "none"
        tensor = logits = found
        while id(tensor) in self.made:
            name, tensor, _ = self.made[id(tensor)]
            if name in _ENDINGS:
                logits, ending = tensor, _ENDINGS[name]
        return ending, logits


def _over_classes(name: str, args: tuple[Any, ...]) -> bool:
    """Say whether an operator is an activation, along the classes where it has an axis."""
    return name == "sigmoid" or (name in _ENDINGS and len(args) > 1 and args[1] in (1, -3))


def _layer(args: tuple[Any, ...], result: torch.Tensor) -> Layer:
    source, weight, transposed = args[0], args[1], args[6]
    channels, height, width = result.shape[1:]
    positions = source[0] if transposed else result[0]
    work = positions.numel() * weight[0].numel()
    return Layer(work, height, width, 4 * channels * height * width)


def _device_of(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))


def _hash(module: nn.Module) -> str:
    """Return a hash of a module's classes, parameters, buffers and attributes; not of its code."""
    digest = hashlib.sha256(repr(module).encode())
    own = vars(nn.Module())  # what every module has, such as its hooks
    for name, part in module.named_modules():
        digest.update(f"{name} {type(part).__module__}.{type(part).__qualname__}".encode())
        _digest(digest, {key: value for key, value in vars(part).items() if key not in own})
    for name, value in chain(module.named_parameters(), module.named_buffers()):
        digest.update(name.encode())
        _digest(digest, value)
    return digest.hexdigest()


def _digest(digest: Any, value: Any) -> None:
    """Add a value to a hash: tensors and containers by what they hold, the rest by type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=repr):
            digest.update(repr(key).encode())
            _digest(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _digest(digest, item)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        digest.update(repr(value).encode())
    else:
        digest.update(type(value).__qualname__.encode())
