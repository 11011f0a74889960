"""What the NVIDIA driver is asked, told by one that is made up: no GPU is needed."""

from typing import Any

import pytest

from tile_infer.engine.backends import device, device_facts
from tile_infer.engine.backends.device import cuda_devices
from tile_infer.engine.backends.device_facts import DeviceMemory, device_memory, device_name

FREE = 5 << 30


class Driver:
    """Two GPUs; calls in ``broken`` fail."""

    def __init__(self, *broken: str) -> None:
        self.broken, self.calls = broken, list[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.broken:
                return 1
            if name == "cuDeviceGetCount":
                arguments[0]._obj.value = 2
            if name == "cuDeviceGet":
                arguments[0]._obj.value = arguments[1]
                return int(arguments[1] >= 2)
            if name == "cuMemGetInfo_v2":
                arguments[0]._obj.value, arguments[1]._obj.value = FREE, 2 * FREE
            if name == "cuDeviceGetName":
                arguments[0].value = b"Card %d" % arguments[2].value
            return 0

        return call


def use(monkeypatch: pytest.MonkeyPatch, driver: Driver | None) -> None:
    for part in (device, device_facts):
        monkeypatch.setattr(part, "cuda_driver", lambda: driver)


def test_free_memory_is_read_and_the_context_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = Driver()
    use(monkeypatch, driver)
    assert device_memory("cuda:1") == DeviceMemory(FREE, 2 * FREE)
    assert driver.calls == [
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
        "cuCtxPushCurrent_v2",
        "cuMemGetInfo_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]
    assert device_name("cuda:1") == "Card 1"
    assert cuda_devices() == 2


@pytest.mark.parametrize(
    ("broken", "released"),
    [
        ("cuDeviceGet", False),
        ("cuDevicePrimaryCtxRetain", False),
        ("cuCtxPushCurrent_v2", True),
        ("cuMemGetInfo_v2", True),
    ],
)
def test_a_driver_that_does_not_say_is_no_error(
    broken: str, released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(broken)
    use(monkeypatch, driver)
    assert device_memory("cuda:0") is None
    assert ("cuDevicePrimaryCtxRelease_v2" in driver.calls) == released
    pushed = "cuCtxPushCurrent_v2" in driver.calls and broken != "cuCtxPushCurrent_v2"
    assert ("cuCtxPopCurrent_v2" in driver.calls) == pushed


def test_without_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    assert (cuda_devices(), device_memory("cuda:0")) == (0, None)
    assert device_name("cuda:0") == "unknown GPU"
    assert device_name("cpu")
