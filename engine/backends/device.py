"""Which devices this machine has."""

import ctypes
import ctypes.util
import os
import platform
import re
import sys
from contextlib import suppress
from pathlib import Path

from ...tiler.errors import DeviceError

DEVICE_NAME = re.compile(r"auto|cpu|cuda(:\d+)?")
"""What a device may be called."""


def _driver() -> ctypes.CDLL | None:
    """Return the NVIDIA driver, ready for use, without loading any framework."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def cuda_devices() -> int:
    """Return the number of NVIDIA GPUs the driver shows."""
    driver, count = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def free_device_bytes(device: str) -> int | None:
    """Return the free memory of ``cuda:N``; ``None`` where the driver does not say."""
    driver, handle = _driver(), ctypes.c_int(0)
    if driver is None or driver.cuDeviceGet(ctypes.byref(handle), cuda_index(device)):
        return None
    # The primary context is the one that the frameworks use too; it is theirs to keep.
    context = ctypes.c_void_p()
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle):
        return None
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    try:
        if driver.cuCtxPushCurrent_v2(context):
            return None
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(handle)
    return None if failed else free.value


def device_name(device: str) -> str:
    """Return the model of a CPU or GPU."""
    if device == "cpu":
        with suppress(OSError):
            for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        return platform.processor() or platform.machine()
    driver, handle, name = _driver(), ctypes.c_int(0), ctypes.create_string_buffer(256)
    if driver is None or driver.cuDeviceGet(ctypes.byref(handle), cuda_index(device)):
        return device
    driver.cuDeviceGetName(name, len(name), handle)
    return name.value.decode(errors="replace")


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
