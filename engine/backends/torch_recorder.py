"""Watch the operators that a Torch module runs."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .base import Ending, Layer
from .torch_causes import tile_dependent_part

_ENDINGS: dict[str, Ending] = {
    "sigmoid": "sigmoid",
    "_softmax": "softmax",
    "_log_softmax": "softmax",
    "argmax": "argmax",
    "max": "argmax",
}
_CONVOLUTIONS = {"convolution", "_convolution"}  # the second as TorchScript calls it
_SAME = {"_to_copy", "squeeze", "unsqueeze", "view", "clone", "alias", "detach"}


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches a run: what each tensor was made from, the work of each layer, and its causes.

    Not for ``inference_mode``, under which operators come by before they are broken down into the
    few that are looked for here.
    """

    def __init__(self, weights: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made: dict[int, tuple[str, torch.Tensor, torch.Tensor]] = {}
        self.layers: list[Layer] = []
        self.parts: list[str] = []
        """Parts whose answer depends on the tile's size."""
        # By where they lie: what a module is given on the way is another object each time.
        self._weights = {weight.data_ptr() for weight in weights}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each operator takes a detour around a compiler that is not there

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")  # sigmoid_ is sigmoid, in place
        source = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if source is not None and name in _ENDINGS and func._schema.is_mutable:
            source = source.clone()
        result = func(*args, **(kwargs or {}))
        part = tile_dependent_part(name, args, kwargs or {}, self._weights)
        if part:
            self.parts.append(part)
        if func._schema.is_mutable and name not in _ENDINGS:
            self._forget_changed(func, args)
        if name in _CONVOLUTIONS:
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
