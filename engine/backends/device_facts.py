"""What a device is called, and how much memory it has: no framework is loaded for that."""

import ctypes
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .device import cpu_cores, cuda_driver, cuda_index


class DeviceMemory(NamedTuple):
    """Memory of a GPU in bytes."""

    free: int
    """What nobody uses."""
    total: int
    """All of it."""


def device_name(device: str) -> str:
    """Return the model of ``cpu`` or ``cuda:N``, as its maker calls it."""
    if device == "cpu":
        cores = cpu_cores()
        return f"{_cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}"
    driver, name = cuda_driver(), ctypes.create_string_buffer(256)
    number = _cuda_device(driver, device)
    if driver is None or number is None or driver.cuDeviceGetName(name, len(name), number):
        return "unknown GPU"
    return name.value.decode(errors="replace")


def unlike_devices(devices: Sequence[str]) -> list[str]:
    """Return a note for devices that are not of one model."""
    names = {each: device_name(each) for each in devices}
    if len({*names.values()}) == 1:
        return []
    told = "; ".join(f"{each} is {name}" for each, name in names.items())
    return [
        f"{told}: tiles and batch are for the least memory of them, and labels may differ in ties "
        "by which computes them; give device=cuda:N to leave others out"
    ]


def device_memory(device: str) -> DeviceMemory | None:
    """Return the memory of a GPU; ``None`` for a CPU, or where the driver does not say."""
    driver = None if device == "cpu" else cuda_driver()
    number = _cuda_device(driver, device)
    context = ctypes.c_void_p()
    # The context that every framework uses: where one has begun, this only counts it once more.
    if (
        driver is None
        or number is None
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), number)
    ):
        return None
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    try:
        if driver.cuCtxPushCurrent_v2(context):
            return None
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(context))
        return None if failed else DeviceMemory(free.value, total.value)
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(number)


def free_what_is_kept() -> None:
    """Let Torch, if it is loaded, give back the GPU memory that it keeps for its next tensors."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _cuda_device(driver: ctypes.CDLL | None, device: str) -> ctypes.c_int | None:
    number = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGet(ctypes.byref(number), cuda_index(device)):
        return None
    return number


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
