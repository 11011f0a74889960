"""Which devices this machine has."""

import ctypes
import ctypes.util
import os
import re
import sys

from ...tiler.errors import DeviceError

DEVICE_NAME = re.compile(r"auto|cpu|cuda(:\d+)?")
"""What a device may be called."""


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


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda:N`` for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceError: A GPU was asked for that is not there, or the name is unknown.
    """
    if not DEVICE_NAME.fullmatch(device):
        raise DeviceError(f"device={device!r} is unknown; use auto, cpu, cuda or cuda:N")
    if device == "cpu":
        return device
    count = cuda_devices()
    if device == "auto":
        return "cuda:0" if count else "cpu"
    if cuda_index(device) >= count:
        raise DeviceError(
            f"device={device} was asked for, but this machine shows {count} NVIDIA GPUs; "
            "use device=cpu or device=auto"
        )
    return f"cuda:{cuda_index(device)}"


def cpu_cores() -> int:
    """Return the number of cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Linux only
        return os.cpu_count() or 1
