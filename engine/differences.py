"""How what is asked for differs from what a mask was begun with."""

from .backends import Network
from .backends.device import device_kind
from .backends.metadata import differing
from .channels import choose_channels
from .levels import choose_level
from .plan import Plan
from .settings import Settings, typed
from .sources import Source


def differences(plan: Plan, source: Source, network: Network, settings: Settings) -> list[str]:
    """Return how a stored plan differs from what is asked for now."""
    found = []
    same_plane = all(
        getattr(settings, name) in (None, getattr(plan.settings, name))
        for name in settings.of_image()
    )
    if same_plane and plan.image.identity != source.facts.identity:
        found.append(f"image: {plan.image.name} with other content or size")
    if plan.network.sha256 != network.facts.sha256:
        found.append(f"model: {plan.network.name} with other content")
    found += [
        f"model: {plan.network.name} with other metadata ({name})"
        for name in differing(plan.network, network.facts)
    ]
    if plan.network.head != network.facts.head:
        found.append(f"head: {plan.network.head} then, {network.facts.head} now")
    if settings.level is not None or settings.mpp is not None:
        level = choose_level(plan.image, plan.network, settings).level
        if level != plan.level:
            found.append(f"level: {plan.level} then, {level} now")
    if settings.channels is not None:
        choose_channels(source, network, settings)  # those that are not there are told as such
    for name, value in settings.given().items():
        before = getattr(plan.settings, name)
        if name not in _WITHOUT_EFFECT and not _same_setting(name, value, before):
            then = "not given" if before is None else typed(before)
            found.append(f"{name}: {then} then, {typed(value)} now")
    return found


def dropped(plan: Plan, settings: Settings) -> list[str]:
    """Return what a stored plan was asked for that is not asked for now."""
    now = settings.given()
    harmless = _HARMLESS | ({"tile"} if plan.exact else set())
    names = [name for name in plan.asked if name not in now and name not in harmless]
    return [f"{name}={getattr(plan.settings, name)}" for name in names]


_WITHOUT_EFFECT = {"memory", "device_memory", "max_output", "head", "level", "mpp", "trust_model"}
"""Settings of which the plan holds what became of them, or that nothing of the mask depends on."""

_HARMLESS = _WITHOUT_EFFECT | {"device", "backend", "workers", "batch_size", "output", "compile"}
"""Settings that may be left out the second time: the mask's labels are the same."""


def _same_setting(name: str, value: object, before: object) -> bool:
    if name == "axes":
        return str(value).upper() == str(before).upper()
    if value == "fast":  # like auto: the first run has resolved it
        return True
    if name == "device":  # which ones of a kind, and how many, is no matter
        return device_kind(str(before)) == device_kind(str(value))
    return value == before
