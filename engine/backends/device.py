"""Which devices this machine has, and what they are called."""

import ctypes
import ctypes.util
import os
import re
import sys
from collections.abc import Sequence

from ...tiler.errors import DeviceError

DEVICES = re.compile(r"auto|cpu(,cpu)*|cuda(:\d+(,\d+)*)?")
"""What one device may be called, or several. One that is named twice is two: a test needs no more
than a CPU."""

DEVICE_NAMES = "auto, cpu, cuda, cuda:N or cuda:N,M"
"""The same, for people."""


def cuda_driver() -> ctypes.CDLL | None:
    """Return NVIDIA's driver, ready to be asked; ``None`` where there is none."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def cuda_devices() -> int:
    """Return the number of NVIDIA GPUs the driver shows, without loading any framework."""
    driver, count = cuda_driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def cuda_index(device: str) -> int:
    """Return N of ``cuda:N``; 0 for plain ``cuda``."""
    return int(device.partition(":")[2] or 0)


def device_kind(devices: str) -> str:
    """Return ``cpu`` or ``cuda``.

    >>> device_kind("cuda:0,2"), device_kind("cpu,cpu")
    ('cuda', 'cpu')
    """
    return devices.replace(",", ":").partition(":")[0]


def device_list(devices: str) -> tuple[str, ...]:
    """Return the devices that are named.

    >>> device_list("cuda:0,2"), device_list("cpu")
    (('cuda:0', 'cuda:2'), ('cpu',))
    """
    kind, _, numbers = devices.partition(":")
    names = tuple(f"{kind}:{int(number)}" for number in numbers.split(",") if number)
    return names or tuple(devices.split(","))


def device_text(devices: Sequence[str]) -> str:
    """Return the one name of several devices.

    >>> device_text(["cuda:0", "cuda:2"])
    'cuda:0,2'
    """
    first, *rest = devices
    return ",".join([first, *(each.removeprefix("cuda:") for each in rest)])


def resolve_devices(devices: str) -> tuple[str, ...]:
    """Return what is meant by ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``cuda:N,M``.

    That is ``cpu``, or ``cuda:N`` for each GPU: all that this machine shows, unless they are named.

    Raises:
        DeviceError: A GPU was asked for that is not there, or the name is unknown.
    """
    if not DEVICES.fullmatch(devices):
        raise DeviceError(f"device={devices!r} is unknown; use {DEVICE_NAMES}")
    if device_kind(devices) == "cpu":
        return device_list(devices)
    count = cuda_devices()
    if devices == "auto" and not count:
        return ("cpu",)
    every = tuple(f"cuda:{number}" for number in range(count))
    found = every if devices in ("auto", "cuda") else device_list(devices)
    if not found or not {*found} <= {*every}:
        raise DeviceError(
            f"device={devices} was asked for, but this machine shows {count} NVIDIA GPUs; "
            "use device=cpu or device=auto"
        )
    return found


def resolve_device(device: str) -> str:
    """Return the one device that is meant, the first of all GPUs by ``auto`` and ``cuda``.

    Raises:
        DeviceError: It is not there, the name is unknown, or several are named.
    """
    if "," in device:
        raise DeviceError(f"device={device} names several; use one of them")
    return resolve_devices(device)[0]


def cpu_cores() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Linux only
        return os.cpu_count() or 1
