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

from ...tiler.errors import DeviceError, ModelError
from .base import Execution, Layer, NetworkFacts, Output, Recipe, Runner
from .causes import counted
from .noise import as_input
from .torch_recorder import Recorder


class TorchNetwork:
    """A network from an ``nn.Module``; it is left as it was found by ``close``."""

    def __init__(
        self, module: nn.Module, head: str | None = None, stated: NetworkFacts | None = None
    ) -> None:
        """Take charge of a module.

        Args:
            module: From ``(batch, channel, y, x)`` to ``(batch, class, y, x)``.
            head: Index of the output to use.
            stated: What the file says that the module comes from.
        """
        if head is not None and not head.isdigit():
            raise ModelError(f"head={head!r}: a torch module's outputs are chosen by index")
        self.module = module
        self.index = None if head is None else int(head)
        self._training = [part for part in module.modules() if part.training]
        self._device = _device_of(module)
        self._threads = torch.get_num_threads()
        self._tf32: tuple[bool, bool] | None = None
        self._largest_px = 0  # of the tiles that were run
        # A module may keep things on itself while it runs (hooks do): one run at a time.
        self._running = Lock()
        self._facts = stated or NetworkFacts(
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
        stated = self._facts.channels
        if stated is not None:
            return stated if None not in self._facts.fixed or self.takes(stated) else None
        first = next((part for part in self.module.modules() if isinstance(part, nn.Conv2d)), None)
        return first.in_channels if first and self.takes(first.in_channels) else None

    def takes(self, channels: int) -> bool:
        """Say whether the module runs with so many channels, at one of three usual sizes."""
        height, width = self._facts.fixed
        for size in (64, 256, 576):
            with suppress(Exception), torch.no_grad():  # any refusal is as good
                self.module(self._zeros(channels, (height or size, width or size)))
                return True
        return False

    def _zeros(self, channels: int, tile: tuple[int, int]) -> torch.Tensor:
        number, device = getattr(torch, self._facts.input_dtype), _device_of(self.module)
        return torch.zeros(self._facts.batch or 1, channels, *tile, dtype=number, device=device)

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
        outputs = found if isinstance(found, list | tuple) else (found,)
        if self.index is None and len(outputs) > 1:
            raise ModelError(
                f"the module returns {len(outputs)} outputs; choose one with head=INDEX"
            )
        if (self.index or 0) >= len(outputs):
            raise ModelError(
                f"head={self.index} is not possible: the module returns {len(outputs)} output(s), "
                "counted from 0"
            )
        found = outputs[self.index or 0]
        if not isinstance(found, torch.Tensor):
            raise ModelError(f"the module returns {type(found).__name__}, not a tensor")
        return _as_map(found, images)

    def logits(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run normalised tiles ``(batch, channel, y, x)``; return ``(batch, class, y, x)``.

        A network of whole numbers is given bytes instead of numbers around 0.
        """
        missing = -len(tiles) % (self._facts.batch or 1)
        filled = as_input(np.concatenate([tiles, *[tiles[-1:]] * missing]), self._facts.input_dtype)
        if self._device.type == "cuda":
            self._allow_tf32(False)
        recorder = Recorder(chain(self.module.parameters(), self.module.buffers()))
        with torch.no_grad(), recorder:
            found = self.forward(torch.from_numpy(filled).to(_device_of(self.module)))
        ends_in, logits = recorder.before_activation(found)
        logits = _as_map(logits, found)
        if not logits.is_floating_point():
            raise ModelError(
                f"the module returns {str(logits.dtype).removeprefix('torch.')}, and no argmax was "
                "seen to make it; let it return logits"
            )
        self._facts = replace(self._facts, ends_in=ends_in)
        size_px = filled.shape[2] * filled.shape[3]
        if size_px > self._largest_px:  # in a tiny tile any pooling is one of the whole
            self._largest_px = size_px
            self._facts = replace(self._facts, tile_dependent=counted(recorder.parts))
        result: NDArray[np.float32] = logits.float().cpu().numpy()[: len(tiles)]
        return result

    def layers(self, channels: int, tile: tuple[int, int]) -> tuple[Layer, ...]:
        """Return the work of one run over a tile."""
        recorder = Recorder()
        with torch.no_grad(), recorder:
            self.forward(self._zeros(channels, tile))
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
        self.number = getattr(torch, network.facts.input_dtype)

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        if self.device.type == "cpu":
            torch.set_num_threads(self.execution.threads)
        recipe = self.recipe
        # An activation at the end is undone by taking its input, at the price of watching each
        # operator; a network that ends in logits is run as it is.
        recorder = None if recipe.ends_in == "none" else Recorder()
        # no_grad: what a module keeps of an inference_mode run could not be trained with later.
        with torch.no_grad():
            images = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device)
            images = images.permute(0, 3, 1, 2)
            if recipe.normalizes:
                images = (images.to(self.exact) - self.offset) * self.scale
                if recipe.clip != (None, None):
                    images = images.clamp(*recipe.clip)
            images = images.to(self.number).contiguous()
            with self._arithmetic(), recorder or nullcontext():
                logits = self.network.forward(images)
            if recorder:
                logits = _as_map(recorder.before_activation(logits)[1], logits)
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


def _as_map(found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return an output with a class axis, which that of one class may lack.

    Raises:
        ModelError: The classes come last.
    """
    if found.ndim == 3 and len(found) == len(images):
        return found.unsqueeze(1)
    size = images.shape[2:]
    if found.ndim == 4 and found.shape[1:3] == size != found.shape[2:] and found.shape[3] < size[1]:
        raise ModelError(
            f"the module returns {tuple(found.shape)} for {tuple(images.shape)}, with the classes "
            "last; let it return (batch, class, y, x)"
        )
    return found


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
