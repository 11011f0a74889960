"""On which devices of this machine a mask is continued."""

from contextlib import suppress
from dataclasses import replace

from ..tiler.errors import DeviceError
from .backends.device import device_kind, resolve_devices
from .plan import Plan
from .settings import Settings
from .shares import run_bytes


def on_devices_now(plan: Plan, settings: Settings) -> Plan:
    """Return a plan that was stored for the devices on which it is continued.

    They are those that are asked for now; else those that were asked for then, if they are here;
    else all of their kind; else what the plan says, which then cannot run.

    Raises:
        DeviceError: What is asked for now is not there.
    """
    if "device" in settings.given():
        return _on(plan, str(settings.device))
    then = [str(plan.settings.device)] if "device" in plan.asked else []
    for wanted in (*then, device_kind(plan.execution.device)):
        with suppress(DeviceError):
            return _on(plan, wanted)
    return plan


def _on(plan: Plan, wanted: str) -> Plan:
    devices = resolve_devices(wanted)
    return replace(plan.on(devices), memory_bytes=run_bytes(plan, len(devices)))
