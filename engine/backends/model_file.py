"""Tell what kind of network a file holds, without opening it."""

from pathlib import Path
from typing import Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from ...tiler.errors import ModelError, SettingError

FileKind = Literal["onnx", "torchscript", "exported"]

_EXPORT = "torch.onnx.export(module.eval(), (torch.zeros(1, 3, 512, 512),), 'network.onnx')"

_REFUSED = {
    "pickled": (
        "a pickled PyTorch module or state dict: its layers are in the code that made it, and "
        f"opening it would run code; export it from there: {_EXPORT}, or give the module from "
        "Python"
    ),
    "checkpoint": (
        "a checkpoint of tile-infer train; give the .onnx file beside it, or write one: "
        "tile-infer export CHECKPOINT --out FILE.onnx"
    ),
    "safetensors": (
        "a safetensors file: weights without layers; load them into the module they are of, and "
        f"export that: {_EXPORT}"
    ),
    "keras": (
        "a Keras file; export it: python -m tf2onnx.convert --keras network.h5 --output "
        "network.onnx, or model.export('network.onnx', format='onnx') in Keras 3"
    ),
    "tensorflow": (
        "a TensorFlow network; export it: python -m tf2onnx.convert --saved-model FOLDER --output "
        "network.onnx"
    ),
    "tflite": (
        "a TensorFlow Lite file; export it: python -m tf2onnx.convert --tflite network.tflite "
        "--output network.onnx"
    ),
    "openvino": (
        "an OpenVINO network; give the ONNX file that it was converted from, or export the "
        f"network again: {_EXPORT}"
    ),
    "compiled": (
        "a network compiled for one machine; give what it was compiled from, as an .onnx file or "
        "as torch.export saved it"
    ),
    "folder": "a folder; give the path of an .onnx file",
    "empty": "empty; get a good copy",
    "unknown": (
        "no network of a kind that is known (ONNX, TorchScript, torch.export, bioimageio.yaml); "
        "check the path"
    ),
    "zip": "a zip archive that holds no network; give the path of an .onnx file",
}
"""What a file may turn out to be, and how to mend that."""

CHECKPOINT_WORDS = (b"network", b"options", b"state", b"metadata", b"training")
"""Keys of a checkpoint of our own, as a pickle spells them."""

_SEARCHED_BYTES = 16 << 20
"""Of a pickle; those of checkpoints, whose tensors lie beside it, are far smaller."""

_BY_START = (
    (b"\x89HDF", 0, "keras"),
    (b"TFL3", 4, "tflite"),
    (b"\x80", 0, "pickled"),
    (b"<?xml", 0, "openvino"),
    (b"<net", 0, "openvino"),
    *(
        (image, 0, "unknown")
        for image in (b"II*\0", b"II+\0", b"MM\0", b"\x89PNG", b"\xff\xd8\xff")
    ),
)
"""How files start, and where."""

_TEXT = bytes(range(32, 127)) + b"\t\n\r"
_TEXT_SUFFIXES = (
    ".json",
    ".onnxjson",
    ".onnxtxt",
    ".onnxtext",
    ".pbtxt",
    ".prototxt",
    ".textproto",
)
"""Of ONNX written as text."""

_BY_SUFFIX = {
    ".pb": "tensorflow",
    ".safetensors": "safetensors",
    ".h5": "keras",
    ".hdf5": "keras",
    ".keras": "keras",
    ".tflite": "tflite",
    ".xml": "openvino",
    ".engine": "compiled",
    ".trt": "compiled",
    ".pte": "compiled",
}


def file_kind(path: Path) -> FileKind:
    """Return what kind of network a file holds, by its first bytes and the names in a zip.

    A binary file that is nothing known counts as ONNX, so that its own reader says what is wrong.

    Raises:
        ModelError: It holds no network that can be run, or is of another framework.
    """
    kind = _kind(path)
    description = _description_in(path) if kind == "folder" else None
    if description is not None:
        raise ModelError(f"model {path} is a folder; give the file in it: {description}")
    if kind in _REFUSED:
        raise ModelError(f"model {path} is {_REFUSED[kind]}")
    return kind  # type: ignore[return-value]  # all others


def check_trust(path: Path, kind: FileKind, trusted: bool) -> None:
    """Refuse a file that can run code when it is opened, unless it is trusted.

    Raises:
        SettingError: It is not.
    """
    what = {"torchscript": "a TorchScript file", "exported": "a torch.export archive"}
    if kind in what and not trusted:
        raise SettingError(
            f"model {path} is {what[kind]}, which can run code of whoever made it when it is "
            "opened; use trust_model if you trust where it comes from, or give the network as an "
            ".onnx file, which cannot"
        )


def _description_in(folder: Path) -> Path | None:
    from .bioimageio_package import FILES

    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "tensorflow" if (path / "saved_model.pb").exists() else "folder"
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return "onnx"  # whose reader says why it cannot be read
    if start.startswith(b"PK"):
        return _kind_of_zip(path)
    for signature, place, kind in _BY_START:
        if start[place : place + len(signature)] == signature:
            return kind
    if not start:
        return "empty"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
        return "safetensors"
    suffix = path.suffix.lower()
    if suffix not in (*_BY_SUFFIX, *_TEXT_SUFFIXES) and not start.strip(_TEXT):
        return "unknown"
    return _BY_SUFFIX.get(suffix, "onnx")


def _kind_of_zip(path: Path) -> str:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError) as error:
        raise ModelError(
            f"model {path} is a damaged zip archive ({error}); copy it again"
        ) from error
    inside = {name.partition("/")[2] for name in names} | set(names)  # all lie in one folder
    if any(name.startswith("data/aotinductor/") for name in inside):
        return "compiled"
    if inside & {"models/model.json", "serialized_exported_program.json"}:
        return "exported"
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        return "torchscript"
    if "data.pkl" in inside:
        return "checkpoint" if _is_checkpoint(path) else "pickled"
    return "keras" if "config.json" in inside and "metadata.json" in inside else "zip"


def _is_checkpoint(path: Path) -> bool:
    """Say whether a pickle in a zip is a checkpoint of our own; it is searched, not unpickled."""
    with ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        if archive.getinfo(name).compress_type != ZIP_STORED:  # as Torch leaves it
            return False
        with archive.open(name) as pickled:
            words = pickled.read(_SEARCHED_BYTES)
    return all(word in words for word in CHECKPOINT_WORDS)
