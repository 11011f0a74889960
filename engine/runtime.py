"""Choose which library runs a network, and on which devices."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

from ..tiler.errors import DeviceError, MissingExtraError, SettingError
from .backends.base import Backend, Execution, Network, NetworkFacts, Recipe
from .backends.device import resolve_devices
from .settings import Settings

BACKENDS: dict[str, tuple[Backend, ...]] = {
    "onnx": ("onnx", "openvino", "torch"),
    "torch": ("torch",),
}
"""What runs an ONNX file, and what a Torch module; the first where nothing else is asked for."""


def choose_runtime(network: NetworkFacts, settings: Settings) -> tuple[Backend, tuple[str, ...]]:
    """Return the library that runs a network, and ``cpu`` or ``cuda:N`` for each device.

    Raises:
        DeviceError: The device cannot be had, or the library asked for does not run the network.
        MissingExtraError: Only a library that is not installed has the precision asked for.
    """
    possible = BACKENDS[network.backend]
    asked = settings.backend or "auto"
    if asked != "auto" and asked not in possible:
        kind = {"onnx": "an ONNX file", "torch": "a Torch module"}[network.backend]
        raise DeviceError(
            f"backend={asked} does not run {kind}; use backend={' or '.join(possible)}"
        )
    backend = possible[0] if asked == "auto" else asked
    device = settings.device or "auto"
    if backend == "openvino" and device == "auto":
        device = "cpu"
    devices = resolve_devices(device)
    if asked == "auto" and backend == "onnx" and settings.precision == "bf16":  # it has none
        backend = "openvino" if devices[0] == "cpu" else "torch"
        if backend == "openvino" and find_spec("openvino") is None:
            raise MissingExtraError(
                "precision=bf16 needs the library openvino for an ONNX file on a CPU: pip install "
                "openvino"
            )
    return backend, devices


def choose_form(
    network: Network, recipe: Recipe, execution: Execution, settings: Settings
) -> tuple[Execution, str]:
    """Return an execution in the quickest form of a network that gives its own logits.

    Besides, why that is not the one that is wanted.

    Raises:
        SettingError: Something is to be compiled that Torch does not run.
    """
    if execution.backend != "torch":
        if settings.compile:
            raise SettingError(
                f"compile=True is for what Torch runs; {network.facts.name} is run by "
                f"{execution.backend}: leave compile out, or use backend=torch"
            )
        return execution, ""
    wanted = replace(execution, form="compiled" if settings.compile else "graph")
    form, why = network.form(recipe, wanted)
    return replace(execution, form=form), why


def other_runtimes(
    network: NetworkFacts, usual: Execution, settings: Settings
) -> tuple[Backend, ...]:
    """Return what else could run a network on a CPU, where the user leaves the choice to us.

    Not Torch: of an ONNX file it was never the fastest there, and takes seconds to load.
    """
    if settings.backend not in (None, "auto") or usual.device != "cpu":
        return ()
    return tuple(each for each in BACKENDS[network.backend] if each not in (usual.backend, "torch"))


def attempts(network: NetworkFacts, settings: Settings) -> Iterator[Settings]:
    """Yield the settings to try one after the other, while the device cannot be had.

    On a GPU an ONNX file is run by Torch where ONNX Runtime cannot; a GPU that nobody asked for is
    given up in the end.
    """
    yield settings
    backend, devices = choose_runtime(network, settings)
    if devices[0] == "cpu":
        return
    if backend == "onnx" and settings.backend in (None, "auto") and find_spec("torch"):
        yield replace(settings, backend="torch")
    if settings.device in (None, "auto"):
        yield replace(settings, device="cpu")
