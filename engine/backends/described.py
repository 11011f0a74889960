"""A network's file with what lies beside it: our JSON, or a description of the Model Zoo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...tiler.errors import MissingExtraError, ModelError, TileInferError
from .base import Network, NetworkFacts
from .bioimageio_model import Description
from .bioimageio_package import Package, find_package
from .metadata import read_beside, with_metadata
from .wrapped import WrappedNetwork

OpenFile = Callable[[Path, str | None], Network]


def open_described(path: Path, head: str | None, open_file: OpenFile) -> Network:
    """Open a network, and add what is said of it beside its file.

    Args:
        path: Weights, a description (``bioimageio.yaml``), or a package of both (``.zip``).
        head: Name or index of the output to use.
        open_file: Opens weights, given their path and the output.

    Raises:
        ModelError: It cannot be opened, or two places contradict each other.
        MissingExtraError: A description needs the library ``bioimageio.spec``.
    """
    doubts: tuple[str, ...] = ()
    try:
        package = find_package(path)
    except MissingExtraError as error:
        if path.suffix.lower() in (".yaml", ".yml", ".zip"):
            raise
        package, doubts = None, (str(error),)  # the weights alone may do
    if package is None:
        network = open_file(path, head)
        beside = read_beside(path)
        if not (beside or doubts):
            return network
        said = with_metadata(network.facts, *beside) if beside else network.facts
        return DescribedNetwork(network, replace(said, doubts=doubts))
    return _open_package(package, head, open_file)


def _open_package(package: Package, head: str | None, open_file: OpenFile) -> Network:
    description = package.describe(head)
    with package.weights() as weights:
        try:
            network = open_file(weights, description.head)
            beside = read_beside(weights)
        except TileInferError as error:  # the place of unpacked weights tells nobody anything
            text = str(error).replace(str(weights), f"{weights.name} of {package.path}")
            raise type(error)(text) from error
    try:
        facts = _with_description(network.facts, description)
        if beside:
            facts = with_metadata(facts, *beside)
    except ModelError:
        network.close()
        raise
    return DescribedNetwork(network, facts)


def _with_description(facts: NetworkFacts, description: Description) -> NetworkFacts:
    who, channels = description.file, description.channels
    if None not in (facts.channels, channels) and facts.channels != channels:
        raise ModelError(
            f"{who} says {channels} input channels, but the network takes {facts.channels}; "
            "correct the description"
        )
    facts = replace(
        facts,
        preprocessing=description.preprocessing,
        origins=(*facts.origins, ("preprocessing", who), ("declared", who)),
    )
    facts = with_metadata(facts, who, description.metadata)
    return replace(
        facts,
        name=description.name or facts.name,
        channels=facts.channels or channels,
        declared=description.declared,
        remarks=description.remarks,
        doubts=description.doubts,
    )


class DescribedNetwork(WrappedNetwork):
    """A network whose facts are told by more than its file."""

    def __init__(self, network: Network, said: NetworkFacts) -> None:
        super().__init__(network)
        before = network.facts
        # What running it tells later, such as its ending, still comes from the network.
        self._said = {
            name: getattr(said, name)
            for name in NetworkFacts.__dataclass_fields__
            if getattr(said, name) != getattr(before, name)
        }

    @property
    def facts(self) -> NetworkFacts:
        """Facts about the network."""
        return replace(self._network.facts, **self._said)
