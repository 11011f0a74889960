"""Find and open a description of the BioImage Model Zoo, and the weights it describes."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from posixpath import normpath
from tempfile import TemporaryDirectory
from typing import Any

from ...tiler.errors import MissingExtraError, ModelError, first_line
from ..memory import human
from .bioimageio_model import Description, understand
from .zip_archive import LARGEST_TEXT_BYTES, opened, read_text, unpack

FILES = ("bioimageio.yaml", "rdf.yaml")
"""Names that a description bears in a folder or a package; also as endings, after a dot."""

FORMATS = ("onnx", "torchscript")
"""Weights that can be run, the best first."""

LARGEST_PARTS = 100_000
"""Of a description: keys, values and entries of lists."""


@dataclass(frozen=True, slots=True)
class Package:
    """A description and where its weights are."""

    path: Path
    """The description itself, or the ``.zip`` that holds it."""
    file: str
    """Name of the description."""
    folder: str | None
    """Folder of the description inside the ``.zip``; ``None`` where it lies on disk."""
    model: Any
    """Model description of the library ``bioimageio.spec``, format 0.5."""
    entry: Any
    """Which of its weights are used."""
    named: bool
    """Whether the network bears the description's name instead of its file's."""

    def describe(self, head: str | None) -> Description:
        """Return what is said of the network; see ``understand``."""
        return understand(self.model, self.file, head, named=self.named)

    @contextmanager
    def weights(self) -> Iterator[Path]:
        """Yield the path of the weights, there for as long as the context lasts.

        Raises:
            ModelError: They are missing, elsewhere, or not those that were described.
        """
        files = [self.entry]
        if getattr(self.entry, "external_data", None) is not None:
            files.append(self.entry.external_data)
        for file in files:
            source = str(file.source)
            if "://" in source or source.startswith("/") or normpath(source).startswith(".."):
                raise ModelError(
                    f"{self.file} names the weights {source}; only files beside it are read: "
                    "download them there, and name them so"
                )
        if self.folder is None:
            for file in files:
                self._check(self.path.parent / str(file.source), file.sha256)
            yield self.path.parent / str(self.entry.source)
            return
        # A member is written under its last name only, so that none can leave the folder.
        with TemporaryDirectory(prefix="tile_infer_", ignore_cleanup_errors=True) as place:
            for file in files:
                path = Path(place) / PurePosixPath(str(file.source)).name
                self._unpack(str(file.source), path)
                self._check(path, file.sha256)
            yield Path(place) / PurePosixPath(str(self.entry.source)).name

    def _unpack(self, source: str, target: Path) -> None:
        member = normpath(f"{self.folder}{source}")
        with opened(self.path) as archive:
            if member not in archive.namelist():
                raise ModelError(
                    f"{self.file} in {self.path} names the weights {source}, which are not in it; "
                    "get a complete package"
                )
            unpack(archive, member, target, self.path)

    def _check(self, path: Path, sha256: object) -> None:
        if sha256 is None:
            return
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(
                f"{self.file} names the weights {path}, which cannot be read ({error.strerror}); "
                "put them there"
            ) from error
        if found != str(sha256):
            raise ModelError(
                f"{path.name} is not the file that {self.file} describes: its sha256 is "
                f"{found[:12]}…, not {str(sha256)[:12]}…; get both anew"
            )


def find_package(path: Path) -> Package | None:
    """Return the description that a path is, or that lies beside weights and names them.

    Args:
        path: A ``.yaml``, a ``.zip``, or weights.

    Raises:
        ModelError: There is one, and it is no valid description of a model.
        MissingExtraError: There is one, and the library that reads it is missing.
    """
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with opened(path) as archive:
            member = _description_in(archive.namelist(), path)
            content = read_text(archive, member, path)
        file = PurePosixPath(member).name
        model = _load(content, f"{file} in {path}")
        return Package(path, file, member.removesuffix(file), model, _best(model, file), True)
    if suffix in (".yaml", ".yml"):
        model = _load(_read(path), str(path))
        return Package(path, path.name, None, model, _best(model, path.name), True)
    for name in FILES:
        place = path.with_name(name)
        if not place.is_file():
            continue
        content = _read(place)
        if path.name.encode() not in content:
            continue
        model = _load(content, str(place), beside=path)
        for entry in _entries(model):
            source = str(entry.source)
            if "://" not in source and normpath(source) == path.name:
                return Package(place, name, None, model, entry, False)
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT_BYTES + 1)
    except OSError as error:
        raise ModelError(
            f"model {path} cannot be read ({error.strerror}); check the path"
        ) from error
    if len(content) > LARGEST_TEXT_BYTES:
        raise ModelError(
            f"{path} is larger than any description ({human(LARGEST_TEXT_BYTES)}); get it anew"
        )
    return content


def _description_in(names: list[str], path: Path) -> str:
    """Return the description nearest to the top of a package."""
    for depth in (0, 1):
        for wanted in FILES:
            for name in sorted(names):
                file = PurePosixPath(name).name
                if name.count("/") == depth and (file == wanted or file.endswith(f".{wanted}")):
                    return name
    raise ModelError(
        f"model {path} holds no {' or '.join(FILES)}; only packages of the BioImage Model Zoo are "
        "read from a .zip"
    )


def _best(model: Any, file: str) -> Any:
    """Return the weights that run best."""
    entries = _entries(model)
    if not entries:
        there = ", ".join(name for name, entry in model.weights if entry is not None)
        raise ModelError(
            f"{file} has weights for {there} only; {' or '.join(FORMATS)} can be run: convert them"
        )
    return entries[0]


def _entries(model: Any) -> list[Any]:
    found = [getattr(model.weights, name, None) for name in FORMATS]
    return [entry for entry in found if entry is not None]


def _load(content: bytes, where: str, beside: Path | None = None) -> Any:
    """Return the valid description; nothing but ``content`` is read, here or on the network.

    Args:
        content: The YAML.
        where: What holds it, for errors.
        beside: Weights that it lies beside.
    """
    try:
        from bioimageio.spec import InvalidDescr, ValidationContext, build_description
        from ruyaml import YAML
    except ImportError as error:
        does = f"{where} describes {beside}, but was not read" if beside else f"reading {where}"
        raise MissingExtraError(
            f"{does}: that needs the library bioimageio.spec: pip install bioimageio.spec"
        ) from error
    try:
        plain = _convertible(_bounded(YAML(typ="safe").load(content)))
        with (
            warnings.catch_warnings(action="ignore"),  # of doubts about its own conversions
            ValidationContext(perform_io_checks=False, log_warnings=False) as context,
        ):
            model = build_description(plain, context=context, format_version="latest")
    except Exception as error:  # the YAML reader's and the library's own
        raise ModelError(f"{where} cannot be understood: {first_line(error)}") from error
    if isinstance(model, InvalidDescr):
        raise ModelError(f"{where} is no valid description: {_first_fault(model)}; correct it")
    if model.type != "model":
        raise ModelError(f"{where} describes a {model.type}; a model is needed")
    return model


def _bounded(plain: Any) -> Any:
    """Refuse YAML whose references to its own parts unfold without end, or almost."""
    left, parts = [plain], 0
    while left:
        part = left.pop()
        parts += 1
        if parts > LARGEST_PARTS:
            raise ValueError(f"it unfolds to more than {LARGEST_PARTS} parts")
        if isinstance(part, dict):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set):
            left += part
    return plain


def _convertible(plain: Any) -> Any:
    """Leave out what the library cannot convert: the halo of a fixed output of format 0.4.

    The measured halo is used in any case.
    """
    if isinstance(plain, dict) and str(plain.get("format_version", "")).startswith(("0.3", "0.4")):
        for output in plain.get("outputs") or ():
            if isinstance(output, dict) and isinstance(output.get("shape"), list):
                output.pop("halo", None)
    return plain


def _first_fault(invalid: Any) -> str:
    faults = [
        (".".join(map(str, fault.loc)), fault.msg.splitlines()[0].removeprefix("Value error, "))
        for detail in invalid.validation_summary.details
        for fault in detail.errors
    ]
    place, what = faults[0] if faults else ("", "it cannot be read")
    return f"{place}: {what}" if place else what
