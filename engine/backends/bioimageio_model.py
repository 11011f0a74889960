"""What a description of the Model Zoo says of a network, in the engine's words."""

import re
from dataclasses import dataclass
from typing import Any

from ...tiler.errors import ModelError, SettingError
from .bioimageio_axes import channel_names, check_layout, declared_axis, pixel_size
from .bioimageio_steps import Postprocessing, read_postprocessing, read_preprocessing
from .declared import Declared
from .metadata import Metadata
from .preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class Description:
    """What is said of a network and one of its outputs."""

    file: str
    """Name of the file that says it."""
    name: str | None
    """Short name of the network; ``None`` where its file's name is to be kept."""
    head: str
    """Index of the output."""
    channels: int | None
    """Input channels."""
    preprocessing: Preprocessing
    """What happens to the pixels."""
    declared: Declared
    """Sizes, margin, halo and classes."""
    metadata: Metadata
    """Classes, activation, threshold and pixel size."""
    remarks: tuple[str, ...] = ()
    """What the user should know of how it was understood."""
    doubts: tuple[str, ...] = ()
    """What of it is not done."""


def understand(model: Any, file: str, head: str | None, *, named: bool) -> Description:
    """Return what a description says.

    Args:
        model: Model description of the library ``bioimageio.spec``, format 0.5.
        file: Name of its file.
        head: Name or index of the output; may be ``None`` where there is only one.
        named: Whether the network bears the description's name instead of its file's.

    Raises:
        ModelError: It is no network from one image to a map.
        SettingError: ``head`` is needed, or unknown.
    """
    inputs = [tensor for tensor in model.inputs if not getattr(tensor, "optional", False)]
    if len(inputs) != 1:
        names = ", ".join(str(tensor.id) for tensor in inputs)
        raise ModelError(
            f"{file} describes {len(inputs)} inputs ({names}); only networks with a single image "
            "input can be tiled"
        )
    source, index = inputs[0], _choose_output(model.outputs, file, head)
    result = model.outputs[index]
    for tensor in (source, result):
        check_layout(tensor, file)
    into, out = channel_names(source), channel_names(result)
    channels, classes = len(into or (1,)), len(out or (1,))
    after = read_postprocessing(result.postprocessing, len(out) if out else None)
    return Description(
        file=file,
        name=short_name(str(model.id or model.name)) if named else None,
        head=str(index),
        channels=channels,
        preprocessing=read_preprocessing(source.preprocessing, channels),
        declared=Declared(
            declared_axis(source, result, "y"), declared_axis(source, result, "x"), classes
        ),
        metadata=Metadata(
            classes=_class_names(out or ()),
            activation=after.activation,
            threshold=after.threshold,
            pixel_size=pixel_size(source),
        ),
        doubts=tuple(_doubts(after, classes, file)),
    )


def short_name(text: str) -> str:
    """Return a name that is fit for a file: letters, digits and hyphens, at most 40.

    >>> short_name("UNet 2D Nuclei/Broad (v2)"), short_name("../..")
    ('unet-2d-nuclei-broad-v2', 'model')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].rstrip("-") or "model"


def _choose_output(outputs: Any, file: str, head: str | None) -> int:
    ids = [str(tensor.id) for tensor in outputs]
    names = ", ".join(f"{index}: {name}" for index, name in enumerate(ids))
    if head is None:
        if len(ids) > 1:
            raise SettingError(f"{file} describes {len(ids)} outputs ({names}); choose with head")
        return 0
    for index, name in enumerate(ids):
        if head in (name, str(index)):
            return index
    raise SettingError(f"{file} describes no output {head!r}; it has {names}")


def _class_names(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the channels' names where they are the classes', and not mere numbers."""
    if len(names) < 2 or all(re.fullmatch(r"(channel|c)?[ _-]?\d+", name) for name in names):
        return None
    return names


def _doubts(after: Postprocessing, classes: int, file: str) -> list[str]:
    found = []
    if after.left_out:
        found.append(f"the mask is made without what {file} does last: {', '.join(after.left_out)}")
    if after.activation == "sigmoid" and classes > 1:
        found.append(
            f"{file} gives each of its {classes} channels a sigmoid of its own, so several may "
            "hold at once: the mask has the largest; output=probabilities keeps all of them"
        )
    return found
