"""What runs on the device for a plan, and what its labels mean."""

from math import prod

import numpy as np

from ..tiler.errors import ModelError, SettingError
from ..tiler.geometry import Geometry
from ..tiler.grid import Grid
from .backends.base import Activation, NetworkFacts, Recipe, Scores
from .normalize import Normalization
from .probe import Probe
from .settings import Settings


def build_recipe(
    dtype: str,
    channels: int,
    grid: Grid,
    geometry: Geometry,
    probe: Probe,
    network: NetworkFacts,
    normalization: Normalization,
    settings: Settings,
) -> Recipe:
    """Return what happens around the network on the device.

    Args:
        dtype: Type of the raw pixels.
        channels: How many the network is given.
        grid: The tiles.
        geometry: What is cropped of them.
        probe: What was measured of the network.
        network: What it says of itself.
        normalization: How pixels are normalised.
        settings: Their ``activation``, ``threshold`` and ``output`` count.

    Raises:
        SettingError: One of these has no meaning for this network.
        ModelError: The model's metadata contradicts the network.
    """
    if probe.classes > 1 and settings.threshold is not None:
        raise SettingError(
            f"threshold={settings.threshold} has no meaning for {probe.classes} classes: the "
            "largest wins; leave it out"
        )
    activation = _choose_activation(network, probe, settings)
    scores: Scores | None = None
    if settings.output and settings.output != "labels":
        scores = settings.output
    if grid.blended and scores == "logits":
        raise SettingError(
            "blended tiles are averaged as probabilities: output=logits has no meaning"
        )
    return Recipe(
        dtype=dtype,
        channels=channels,
        tile=grid.tile,
        offset=normalization.offset,
        scale=normalization.scale,
        crop=(geometry.y.crop(grid.y.lead), geometry.x.crop(grid.x.lead)),
        window=grid.window,
        ends_in=network.ends_in,
        classes=probe.classes,
        activation=activation,
        threshold=_choose_threshold(network, probe, settings),
        labels=not grid.blended,
        scores="probabilities" if grid.blended else scores,
        scores_dtype="float16" if scores == "probabilities" and not grid.blended else "float32",
        clip=normalization.clip,
    )


def _choose_activation(network: NetworkFacts, probe: Probe, settings: Settings) -> Activation:
    """Return what turns logits into probabilities; the file's own ending counts first."""
    asked, said = settings.activation or "auto", False
    if asked == "auto" and network.activation:
        asked, said = network.activation, True
    if network.ends_in == "sigmoid" or network.ends_in == "softmax":
        if asked not in ("auto", "none", network.ends_in):
            if said:
                raise ModelError(
                    f"{network.name} ends in a {network.ends_in}, but its activation is {asked}, "
                    f"{network.says('activation')}; correct the metadata, or use "
                    f"activation={network.ends_in}"
                )
            raise SettingError(
                f"activation={asked} is not possible: {network.name} ends in a {network.ends_in} "
                "already; leave it out"
            )
        return network.ends_in
    if asked == "softmax" and probe.classes == 1:
        if said:
            raise ModelError(
                f"{network.name} has one output channel, whose softmax is 1 everywhere, but its "
                f"activation is softmax, {network.says('activation')}; correct the metadata, or "
                "use activation=sigmoid"
            )
        raise SettingError("activation=softmax of one channel is 1 everywhere; use sigmoid")
    if asked != "auto":
        return asked
    if probe.lowest >= 0 and probe.highest <= 1:
        return "none"  # an activation that could not be seen in the graph
    return "softmax" if probe.classes > 1 else "sigmoid"


def _choose_threshold(network: NetworkFacts, probe: Probe, settings: Settings) -> float:
    if settings.threshold is not None:
        return settings.threshold
    if network.threshold is None:
        return 0.5
    if probe.classes > 1:
        raise ModelError(
            f"threshold={network.threshold:g} {network.says('threshold')} has no meaning for "
            f"{probe.classes} classes: the largest wins; correct the metadata"
        )
    return network.threshold


def class_names(network: NetworkFacts, probe: Probe) -> tuple[str, ...]:
    """Return the name of each label, the model's own or a number.

    Raises:
        ModelError: The metadata has names or colours for another number of classes.
    """
    count = max(2, probe.classes)
    if len(network.class_colours) not in (0, count):
        raise ModelError(
            f"{network.name} has {len(network.class_colours)} colours, "
            f"{network.says('class_colours')}, but its output has {count} classes; correct the "
            "metadata"
        )
    if not network.class_names:
        return tuple(f"class {label}" for label in range(count))
    if len(network.class_names) != count:
        raise ModelError(
            f"{network.name} names {len(network.class_names)} classes in its metadata, but its "
            f"output has {count}; correct the metadata"
        )
    return network.class_names


def output_bytes(grid: Grid, recipe: Recipe, settings: Settings) -> int:
    """Return the size of level 0 and the scores before compression."""
    stored = {"probabilities": 2, "logits": 4}.get(settings.output or "labels", 0)
    label = np.dtype(recipe.label_dtype).itemsize
    return prod(grid.shape) * (label + stored * recipe.classes)
