"""What only OpenVINO does; what all backends do is in the suite over all of them."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import Execution, Output, Recipe, Runner
from tile_infer.tiler.errors import DeviceError, MissingExtraError, ModelError

from ..test_backends import WEIGHTS, needs_openvino, recipe, save_graph, tiles, write_onnx

OPENVINO = Execution("cpu", backend="openvino")
BF16 = replace(OPENVINO, precision="bf16")
ONNX = Execution("cpu", backend="onnx")

pytestmark = needs_openvino


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "net.onnx", WEIGHTS)


def runner(model: Path, execution: Execution, wanted: Recipe | None = None) -> Runner:
    """Prepare a network; skip where bf16 is asked for of a CPU without."""
    try:
        return open_network(model).prepare(wanted or recipe(), execution)
    except DeviceError as error:
        if "on this CPU" not in str(error):
            raise
        pytest.skip(str(error))


def error_of(found: Output, expected: Output) -> float:
    """Return the largest difference of the logits as a share of the largest."""
    assert found.scores is not None
    assert expected.scores is not None
    return float(abs(found.scores - expected.scores).max() / abs(expected.scores).max())


def test_fp32_is_fp32_and_bf16_only_where_it_is_asked_for(model: Path) -> None:
    expected = runner(model, ONNX)(tiles())
    assert error_of(runner(model, OPENVINO)(tiles()), expected) <= 1e-5
    assert 1e-4 < error_of(runner(model, BF16)(tiles()), expected) < 1e-2


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_pixels_are_centred_before_they_are_rounded(model: Path, dtype: str) -> None:
    raw = (tiles("int64").astype(np.int64) + 30_000).astype(dtype)
    wanted = recipe(dtype=dtype, offset=(30_000.0, 30_100.0), scale=(0.3, 0.3))
    expected = runner(model, ONNX, wanted)(raw)
    assert error_of(runner(model, OPENVINO, wanted)(raw), expected) <= 1e-6
    assert error_of(runner(model, BF16, wanted)(raw), expected) < 1e-2


def test_threads_share_a_network_and_keep_their_results(model: Path) -> None:
    batches = [tiles() // (n + 1) for n in range(8)]
    alone = runner(model, OPENVINO)
    run = runner(model, replace(OPENVINO, workers=4))
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, batches * 8))
    expected = [alone(batch) for batch in batches]
    for index, found in enumerate(together):
        assert same(found.labels, expected[index % 8].labels)
        assert same(found.scores, expected[index % 8].scores)


def same(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    return one is not None and other is not None and one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("batch", "count"), [(None, 5), (None, 1), (2, 2)])
def test_any_number_of_tiles_is_run(tmp_path: Path, batch: int | None, count: int) -> None:
    model = write_onnx(tmp_path / "net.onnx", WEIGHTS, batch=batch)
    raw = np.random.default_rng(2).integers(0, 200, (count, 12, 16, 2)).astype("uint8")
    found, expected = (runner(model, execution)(raw) for execution in (OPENVINO, ONNX))
    assert found.labels is not None
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert error_of(found, expected) <= 1e-5


def test_what_is_not_asked_for_is_not_returned(model: Path) -> None:
    labels = runner(model, OPENVINO, recipe(scores=None))(tiles())
    scores = runner(model, OPENVINO, recipe(labels=False))(tiles())
    assert (labels.scores, scores.labels) == (None, None)


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (replace(OPENVINO, precision="fp16"), "precision=fp16 .*; use fp32 or bf16$"),
        (replace(OPENVINO, precision="tf32"), "precision=tf32 .*; use fp32 or bf16$"),
        (replace(OPENVINO, device="cuda:0"), "device=cuda:0 .*; use device=cpu, or backend=onnx$"),
    ],
    ids=str,
)
def test_what_openvino_cannot_do_is_refused(
    model: Path, execution: Execution, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        open_network(model).prepare(recipe(), execution)


def test_an_operator_that_openvino_does_not_know_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Inverse", ["image"], ["out"], domain="com.microsoft")]
    path = save_graph(tmp_path / "net.onnx", nodes, size=12)
    graph = onnx.load(path)
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(graph, path)
    network = open_network(path)
    wanted = recipe(tile=(12, 12), crop=(0, 0), window=(12, 12), classes=2)
    network.prepare(wanted, ONNX)
    with pytest.raises(ModelError, match=r"com\.microsoft\.Inverse; use backend=onnx") as caught:
        network.prepare(wanted, OPENVINO)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match="needs the library openvino: pip install openvino"):
        open_network(model).prepare(recipe(), OPENVINO)


SILENT = """
import sys
import numpy, tile_infer

tile_infer.predict_large(numpy.zeros((40, 40, 2), "uint8"), sys.argv[1], backend="openvino")
assert "openvino" in sys.modules
assert "openvino_telemetry" not in sys.modules
"""


def test_nothing_is_printed_or_reported_to_anybody(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SILENT, model],
        capture_output=True,
        text=True,
        timeout=300,
        env={"HOME": str(home)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (home / "intel").exists(), "its telemetry keeps a name for this machine there"


INTERRUPTED = """
import signal, sys
from threading import Thread
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import Execution, Recipe

runners = [open_network(sys.argv[1]).prepare({recipe}, Execution("cpu", backend="openvino"))]
ended = Thread(target=runners.clear)
ended.start()
ended.join()
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
signal.raise_signal(signal.SIGTERM)
"""


@needs_openvino
def test_a_signal_is_heard_after_a_network_was_dropped_on_another_thread(
    model: Path,
) -> None:
    """On CPUs with tile registers, OpenVINO left a freed stack for signals behind."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(recipe=recipe()), model],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "heard"), done.stderr
