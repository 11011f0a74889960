"""What the NVIDIA driver is asked, told by one that is made up: no GPU is needed."""

from typing import Any

import pytest

from tile_infer import DeviceError
from tile_infer.engine.backends import device, device_facts
from tile_infer.engine.backends.device import cuda_devices, resolve_device, resolve_devices
from tile_infer.engine.backends.device_facts import (
    DeviceMemory,
    device_memory,
    device_name,
    unlike_devices,
)

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


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("auto", ("cuda:0", "cuda:1")),
        ("cuda", ("cuda:0", "cuda:1")),
        ("cuda:1", ("cuda:1",)),
        ("cuda:1,0", ("cuda:1", "cuda:0")),
        ("cuda:0,0", ("cuda:0", "cuda:0")),
        ("cpu", ("cpu",)),
        ("cpu,cpu", ("cpu", "cpu")),
    ],
)
def test_every_gpu_is_meant_unless_some_are_named(
    asked: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Driver())
    assert resolve_devices(asked) == found


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Driver())
    with pytest.raises(DeviceError, match=r"device=cuda:0,2 was asked for, but .* 2 NVIDIA GPUs"):
        resolve_devices("cuda:0,2")
    with pytest.raises(DeviceError, match=r"'cuda:0;1' is unknown; use auto, .* or cuda:N,M"):
        resolve_devices("cuda:0;1")
    use(monkeypatch, None)
    assert resolve_devices("auto") == ("cpu",)
    with pytest.raises(DeviceError, match=r"device=cuda was asked for, but .* 0 NVIDIA GPUs"):
        resolve_devices("cuda")


def test_where_one_device_is_wanted_the_first_is_taken_and_several_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, Driver())
    assert [resolve_device(name) for name in ("auto", "cuda:1", "cpu")] == [
        "cuda:0",
        "cuda:1",
        "cpu",
    ]
    with pytest.raises(DeviceError, match="device=cuda:0,1 names several; use one of them"):
        resolve_device("cuda:0,1")


def test_devices_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"cuda:0": "Card A", "cuda:1": "Card B", "cuda:2": "Card A"}
    monkeypatch.setattr(device_facts, "device_name", names.__getitem__)
    assert unlike_devices(["cuda:0", "cuda:2"]) == unlike_devices(["cuda:1"]) == []
    (note,) = unlike_devices(["cuda:0", "cuda:1"])
    assert note.startswith("cuda:0 is Card A; cuda:1 is Card B: ")
