"""Tell by a hash whether two Torch modules are the same, or one has changed."""

import hashlib
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn


def module_hash(module: nn.Module) -> str:
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
