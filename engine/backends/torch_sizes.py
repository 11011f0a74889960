"""Let a module be traced that computes with sizes as tensors, as TorchScript does."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves


class KnownSizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes single whole numbers that come from no image outside the trace, as constants.

    To the tracer they would be results, and a decision by one of them a decision by what is seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Kept, so that their ids stay their own.
        self._results: dict[int, torch.Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else each operator takes a detour around a compiler that is not there

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        start = func is torch.ops.aten.scalar_tensor.default
        if (start or (given and all(map(self._is_known, given)))) and not func._schema.is_mutable:
            with _disable_current_modes():
                return func(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self._results |= {
            id(one): one
            for one in tree_leaves(result)
            if isinstance(one, torch.Tensor) and one.ndim == 0
        }
        return result

    def _is_known(self, tensor: torch.Tensor) -> bool:
        number = tensor.ndim == 0 and not tensor.is_floating_point()
        return number and id(tensor) not in self._results
