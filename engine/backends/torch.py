"""Run a network given as a Torch module."""

from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...tiler.errors import DeviceError, ModelError
from .base import Execution, Form, Layer, NetworkFacts, Precision, Recipe, Runner
from .causes import counted
from .device import cpu_cores
from .noise import as_input
from .torch_graph import Call, NoGraphError
from .torch_hash import module_hash
from .torch_quick import Quick, quicken, quicken_as_before
from .torch_recorder import Recorder
from .torch_runner import TorchRunner

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of the precisions that Torch runs by its autocast."""


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
        self._benchmark = torch.backends.cudnn.benchmark
        self._largest_px = 0  # of the tiles that were run
        self._made: tuple[tuple[Recipe, Execution], Call] | None = None
        self._compared: dict[Precision, Quick] = {}  # graphs on a CPU, for tiles of some size
        # A module may keep things on itself while it runs (hooks do): one run at a time.
        self._running = Lock()
        self._facts = stated or NetworkFacts(
            name=type(module).__name__.lower(),
            sha256=module_hash(module),
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
        self._made = None
        self._compared.clear()
        for part in self._training:
            part.training = True
        if _device_of(self.module) != self._device:
            self.module.to(self._device)
        torch.set_num_threads(self._threads)
        if self._tf32 is not None:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._tf32
            torch.backends.cudnn.benchmark = self._benchmark

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
        """Return a runner that moves raw pixels to the device and labels back.

        Raises:
            ModelError: The plan was made for a quicker form than is possible here.
        """
        self._place(execution)
        run: Call = partial(self._as_it_is, recipe=recipe, precision=execution.precision)
        if execution.form != "module":
            try:
                run = self._quick(recipe, execution)
            except NoGraphError as error:
                raise ModelError(
                    f"{self.facts.name} cannot be run as the plan says (as {execution.form}): "
                    f"{error}; use overwrite to start again"
                ) from error
        return TorchRunner(run, getattr(torch, self.facts.input_dtype), recipe, execution)

    def form(self, recipe: Recipe, wanted: Execution) -> tuple[Form, str]:
        """Return the quickest form that gives the module's own logits, up to the one wanted.

        Besides, why it is not the one wanted.
        """
        try:
            self._place(wanted)
        except DeviceError:  # the run itself will say so
            return "module", ""
        forms: tuple[Form, ...] = ("compiled", "graph")
        why = ""
        for form in forms[forms.index(wanted.form) :] if wanted.form in forms else ():
            try:
                self._quick(recipe, replace(wanted, form=form))
            except NoGraphError as error:
                why = why or str(error)
            else:
                return form, why
        return "module", why

    def _place(self, execution: Execution) -> None:
        """Bring the module to its device.

        Raises:
            DeviceError: The device or precision cannot be had.
        """
        device = torch.device(execution.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                f"device={execution.device}: this torch has no CUDA; install a CUDA build of it, "
                "or use device=cpu"
            )
        if execution.precision == "tf32" and device.type == "cpu":
            raise DeviceError("precision=tf32 exists on NVIDIA GPUs only; use fp32 on the CPU")
        if device.type == "cpu" and execution.precision in HALF and _is_script(self.module):
            raise DeviceError(
                f"precision={execution.precision} has no effect on TorchScript on a CPU; use fp32, "
                "or give the network as an .onnx file or a torch module"
            )
        if device.type == "cuda":
            self._allow_tf32(execution.precision == "tf32")
            # Each convolution's algorithms are tried once; a run has few sizes and many tiles.
            torch.backends.cudnn.benchmark = True
        if _device_of(self.module) != device:
            self.module.to(device)

    def _quick(self, recipe: Recipe, execution: Execution) -> Call:
        """Return a quick form of the module; the last one is kept, as planning made it."""
        compiled, on_cpu = execution.form == "compiled", execution.device == "cpu"
        threads = execution.threads if compiled else 1  # it has them built in
        key = recipe, replace(execution, workers=1, threads=threads)
        if self._made is None or self._made[0] != key:
            self._made = None
            if on_cpu:  # alone now: on all cores, unless they are built in
                torch.set_num_threads(threads if compiled else cpu_cores())
            call = partial(self._as_it_is, recipe=recipe, precision=execution.precision)
            narrow = execution.precision in HALF
            exactly = partial(self._as_it_is, recipe=recipe, precision="fp32") if narrow else call
            # Fixed by measurement: on a CPU always quicker. On a GPU, Torch's advice.
            last = on_cpu or execution.precision != "fp32"
            noise = self._noise(recipe, 0)
            again = on_cpu and not compiled
            before = self._compared.get(execution.precision) if again else None
            made = before and quicken_as_before(self.module, call, noise, before)
            if made is None:
                others = self._noise(recipe, 1)
                made = quicken(
                    self.module, call, exactly, noise, others, last=last, compiled=compiled
                )
            if again:
                self._compared[execution.precision] = made
            self._made = key, made.run
        return self._made[1]

    def _noise(self, recipe: Recipe, seed: int) -> torch.Tensor:
        shape = (self._facts.batch or 1, recipe.channels, *recipe.tile)
        noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
        images = torch.from_numpy(as_input(noise, self._facts.input_dtype))
        return images.to(_device_of(self.module))

    def _as_it_is(self, images: torch.Tensor, recipe: Recipe, precision: Precision) -> torch.Tensor:
        """Run the module as it is and return its logits."""
        # An activation at the end is undone by taking its input, at the price of watching each
        # operator; a network that ends in logits is only run.
        recorder = None if recipe.ends_in == "none" else Recorder()
        kind = HALF.get(precision)
        narrow = torch.autocast(images.device.type, kind) if kind else nullcontext()
        with narrow, recorder or nullcontext():
            found = self.forward(images.contiguous())
        return _as_map(recorder.before_activation(found)[1], found) if recorder else found


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


def _is_script(module: nn.Module) -> bool:
    """Say whether a module calls convolutions by a name that autocast does not know on a CPU."""
    return any(isinstance(part, torch.jit.ScriptModule) for part in module.modules())


def _device_of(module: nn.Module) -> torch.device:
    return next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
