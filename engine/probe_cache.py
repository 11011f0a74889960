"""Measure a network once on this machine, not once for every image."""

from weakref import WeakKeyDictionary

import msgspec

from .backends import Network
from .backends.device_facts import device_name
from .cache import cache, cache_path, cached
from .inspection import inspect
from .probe import Probe
from .settings import Settings

_OPEN: WeakKeyDictionary[Network, dict[tuple[object, ...], Probe]] = WeakKeyDictionary()
"""What was measured of Torch modules that are open."""


def inspect_once(network: Network, settings: Settings, channels: int, largest: float) -> Probe:
    """Return what `inspect` measures, or what it measured of the same file before.

    A Torch module is measured each time that it is opened: its hash does not cover what it does in
    Python.

    Args:
        network: The network.
        settings: Their ``tolerance``, ``halo`` and ``tile`` count.
        channels: Input channels.
        largest: Largest number that it will be given, whatever its sign.

    Raises:
        ModelError: It is not a network from an image to a map.
        SettingError: It does not take so many channels.
    """
    facts = network.facts
    if facts.backend != "onnx":
        measured = _OPEN.setdefault(network, {})
        asked = settings.tolerance, settings.halo, settings.tile, channels, largest
        if asked not in measured:
            measured[asked] = inspect(network, settings, channels, largest)
        return measured[asked]
    about = {
        "network": [facts.sha256, facts.head, facts.ends_in, facts.fixed],
        "settings": [settings.tolerance, settings.halo, settings.tile],
        "input": [channels, largest],
        "device": device_name("cpu"),
    }
    path = cache_path("probes", about)
    try:
        return msgspec.convert(cached(path), Probe, strict=False)
    except msgspec.ValidationError:
        found = inspect(network, settings, channels, largest)
        cache(path, msgspec.to_builtins(found))
        return found
