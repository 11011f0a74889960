"""A payload that leaves a trace where it is run, and files that carry it."""

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.trace,)


def pickled(path: Path, trace: Path) -> Path:
    """Write a plain pickle."""
    path.write_bytes(pickle.dumps(Payload(trace)))
    return path


def saved(path: Path, trace: Path) -> Path:
    """Write what ``torch.save`` writes: a zip that holds a pickle."""
    torch.save({"state": Payload(trace)}, path)
    return path


def exported(path: Path, trace: Path) -> Path:
    """Write a ``torch.export`` archive whose examples of the input carry the payload."""
    program = torch.export.export(nn.Conv2d(1, 2, 3), (torch.zeros(1, 1, 16, 16),))
    torch.export.save(program, path)
    return _replaced(path, "sample_inputs", saved(path.with_suffix(".payload"), trace))


def write_script(path: Path, module: nn.Module) -> None:
    """Write a module as TorchScript, which Torch deprecates."""
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(module).save(path)  # type: ignore[no-untyped-call]


def script(path: Path, trace: Path) -> Path:
    """Write a TorchScript archive that carries the payload in the place of its weights."""
    write_script(path, nn.Conv2d(1, 2, 3))
    return _replaced(path, "data.pkl", pickled(path.with_suffix(".payload"), trace))


def _replaced(path: Path, part: str, payload: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (victim, *_) = (name for name in members if part in name)
    members[victim] = payload.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path
