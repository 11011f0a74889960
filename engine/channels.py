"""Which channels of an image a network is given."""

from ..tiler.errors import SettingError
from .backends import Network
from .settings import Settings, typed
from .sources import Source


def choose_channels(source: Source, network: Network, settings: Settings) -> tuple[int, ...]:
    """Return the channels asked for; else all, without alpha if the network takes one less.

    Raises:
        SettingError: They are not there, or are not as many as the network takes.
    """
    there, wanted = source.facts.channels, network.facts.channels
    channels = tuple(range(there)) if settings.channels is None else settings.channels
    if settings.channels is None and source.facts.alpha is not None and wanted == there - 1:
        channels = tuple(channel for channel in channels if channel != source.facts.alpha)
    if max(channels) >= there:
        there_are = f"channels 0 to {there - 1}" if there > 1 else "one channel, channels=0"
        raise SettingError(f"channels={typed(channels)}: {source.facts.name} has {there_are}")
    if wanted is None or len(channels) == wanted or network.takes(len(channels)):
        return channels
    if settings.channels is not None:
        raise SettingError(
            f"channels={typed(channels)} are {len(channels)}, but the network takes {wanted}"
        )
    raise SettingError(
        f"{source.facts.name} has {there} channels ({source.facts.axes}), the network "
        f"takes {wanted}; choose some, e.g. channels="
        + ",".join(str(min(n, there - 1)) for n in range(wanted))
    )
