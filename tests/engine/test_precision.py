"""``precision=fast`` takes what is faster and changes next to no labels, and says how many."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tile_infer import (
    DeviceError,
    OutputError,
    TileInferWarning,
    plan_prediction,
    predict_large,
)
from tile_infer.engine import augmentation, precision, runtime
from tile_infer.engine.plan import Plan
from tile_infer.engine.precision import MOST_CHANGED, changed_share, varied_boxes
from tile_infer.engine.sources import open_source
from tile_infer.tiler.errors import MissingExtraError

from .test_backends import WEIGHTS, needs_openvino, write_onnx

GREY = np.random.default_rng(0).integers(0, 255, (900, 700), dtype=np.uint8)
BLACK_AND_WHITE = np.where(GREY < 128, 0, 255).astype(np.uint8)


class Half(nn.Module):
    """Tells pixels above a half: bf16, in steps of 0.5 at 100, can of black and white alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.inner.weight)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        above = self.inner(pixels + 99.5).float() - 100
        return torch.cat([-above, above], dim=1)


@pytest.fixture(params=[("bf16", 0.5), ("bf16", 2.0)], ids=["bf16 is faster", "bf16 is slower"])
def bf16_is_faster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    name, factor = request.param
    _let_time_pass(monkeypatch, {name: factor})
    return bool(factor < 1)


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    _let_time_pass(monkeypatch, {"bf16": 0.5})


def _let_time_pass(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """Let a run take a second in fp32, and in other precisions what is said."""
    taken, of_thread = {"seconds": 1.0}, threading.local()

    def told(network: Any, plan: Plan) -> Any:
        taken["seconds"] = seconds.get(plan.execution.precision, 1.0)
        return augmentation.prepare(network, plan)

    def clock() -> float:
        """Tell the time of this thread alone: tiles are run by several."""
        of_thread.now = getattr(of_thread, "now", 0.0) + taken["seconds"]
        return float(of_thread.now)

    monkeypatch.setattr(precision, "prepare", told)
    monkeypatch.setattr(precision, "perf_counter", clock)


def test_what_is_faster_and_changes_no_label_is_taken(bf16_is_faster: bool) -> None:
    plan = plan_prediction(BLACK_AND_WHITE, Half(), precision="fast", normalize="unit")
    expected = "bf16" if bf16_is_faster else "fp32"
    assert plan.execution.precision == plan.settings.precision == expected
    assert plan.labels_changed == (0.0 if bf16_is_faster else None)
    assert plan.summary()["labels_changed"] == plan.labels_changed
    assert any(note.startswith(f"precision {expected}, run by Torch: bf16") for note in plan.notes)


@pytest.mark.usefixtures("fast_bf16")
def test_what_changes_labels_is_refused_however_fast() -> None:
    plan = plan_prediction(GREY, Half(), precision="fast")
    assert (plan.execution.precision, plan.labels_changed) == ("fp32", None)
    (note,) = [note for note in plan.notes if note.startswith("precision fp32")]
    share = float(note.partition("labels of ")[2].partition(" %")[0])
    assert share > 100 * MOST_CHANGED
    # Asked for by name, it is run all the same, and changes as many labels as was said.
    fp32, bf16 = (
        np.asarray(predict_large(GREY, Half(), precision=name)) for name in ("fp32", "bf16")
    )
    assert 100 * (fp32 != bf16).mean() == pytest.approx(share, rel=0.2)


def test_the_same_image_is_judged_alike_each_time(bf16_is_faster: bool) -> None:
    first = plan_prediction(GREY, Half(), precision="fast")
    assert plan_prediction(GREY, Half(), precision="fast") == first


def test_the_share_counts_pixels_whose_label_is_another_or_none() -> None:
    one = [np.array([[0, 1], [1, 1]], np.uint8), np.array([[2, 2, 2, 255]], np.uint8)]
    other = [np.array([[0, 1], [0, 1]], np.uint8), np.array([[2, 2, 255, 255]], np.uint8)]
    assert changed_share(one, one, 7) == 0
    assert changed_share(one, other, 255) == 3 / 8


def test_the_tiles_that_vary_most_are_compared() -> None:
    pixels = np.full((3000, 5000), 7, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (200, 200))
    busy = [(0, 0), (1, 3), (2, 7), (5, 2), (5, 9)]
    for y, x in busy:
        pixels[y * 500 + 150 : y * 500 + 350, x * 500 + 150 : x * 500 + 350] = noise
    plan = plan_prediction(pixels, nn.Conv2d(1, 2, 1), tile=(500, 500))
    boxes = varied_boxes(plan, open_source(pixels))
    assert len(boxes) == 8
    found = [(box.y.start // 500, box.x.start // 500) for box in boxes]
    looked = set(range(10)) - {2, 7}  # of ten columns eight are looked at
    assert set(found[:3]) <= set(busy)
    assert {x for _, x in found} <= looked | {2, 7}
    assert all(box.shape == (500, 500) for box in boxes)


def test_pixels_without_data_do_not_vary() -> None:
    pixels = np.full((1000, 1000), 9, np.uint8)
    pixels[:500, :500] = np.random.default_rng(0).integers(0, 2, (500, 500)) * 9
    plan = plan_prediction(pixels, nn.Conv2d(1, 2, 1), tile=(500, 500))
    assert varied_boxes(plan, open_source(pixels))[0].y.start == 0
    plan = plan_prediction(pixels, nn.Conv2d(1, 2, 1), tile=(500, 500), nodata=9)
    quiet = varied_boxes(plan, open_source(pixels))
    assert len(quiet) == 4


@pytest.mark.usefixtures("fast_bf16")
@pytest.mark.parametrize("size", [(1, 1), (3, 900)])
def test_an_image_smaller_than_a_tile_is_one(size: tuple[int, int]) -> None:
    plan = plan_prediction(BLACK_AND_WHITE[: size[0], : size[1]], Half(), precision="fast")
    assert plan.execution.precision == "bf16"


@pytest.mark.usefixtures("fast_bf16")
def test_blended_and_turned_tiles_are_judged_by_their_mean() -> None:
    plan = plan_prediction(BLACK_AND_WHITE, Half(), precision="fast", blend="hann", tta="flips")
    assert (plan.execution.precision, plan.labels_changed) == ("bf16", 0.0)


@pytest.mark.usefixtures("fast_bf16")
def test_the_same_command_resumes_and_a_stored_choice_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mask.zarr"
    first = predict_large(BLACK_AND_WHITE, Half(), out, precision="fast")
    assert first.report["precision"] == "bf16"
    assert first.report["plan"]["labels_changed"] == 0
    _let_time_pass(monkeypatch, {"bf16": 2.0})
    again = predict_large(BLACK_AND_WHITE, Half(), out, precision="fast")
    assert again.plan == first.plan
    predict_large(BLACK_AND_WHITE, Half(), out, precision="bf16")
    with pytest.raises(OutputError, match="precision: bf16 then, fp32 now"):
        predict_large(BLACK_AND_WHITE, Half(), out, precision="fp32")
    with pytest.warns(TileInferWarning, match="begun with precision=bf16 and is kept so"):
        predict_large(BLACK_AND_WHITE, Half(), out)


@needs_openvino
def test_bf16_of_an_onnx_file_is_run_by_openvino(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "net.onnx", WEIGHTS)
    image = np.zeros((60, 50, 2), np.uint8)
    plan = plan_prediction(image, model, precision="bf16")
    assert (plan.execution.backend, plan.settings.backend) == ("openvino", "openvino")
    assert plan_prediction(image, model).execution.backend == "onnx"
    assert (
        plan_prediction(image, model, precision="bf16", backend="onnx").execution.backend == "onnx"
    )


def test_without_openvino_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    model = write_onnx(tmp_path / "net.onnx", WEIGHTS)
    with pytest.raises(MissingExtraError, match=r"bf16 needs .* pip install openvino$"):
        plan_prediction(np.zeros((60, 50, 2), np.uint8), model, precision="bf16")


@needs_openvino
@pytest.mark.usefixtures("fast_bf16")
@pytest.mark.parametrize(("backend", "ran"), [(None, "openvino"), ("onnx", "onnx")])
def test_an_onnx_file_is_run_by_openvino_where_that_is_left_open(
    tmp_path: Path, backend: Any, ran: str
) -> None:
    weights = np.zeros_like(WEIGHTS)
    weights[1] = 1  # the second class by far, but in a pixel of zeros
    model = write_onnx(tmp_path / "net.onnx", weights)
    image: NDArray[np.uint8] = np.full((60, 50, 2), 200, np.uint8)
    plan = plan_prediction(image, model, precision="fast", backend=backend)
    if ran == "openvino" and plan.labels_changed is None:
        pytest.skip("this CPU has no bf16")
    assert plan.execution.backend == plan.settings.backend == ran
    assert plan.execution.precision == ("bf16" if ran == "openvino" else "fp32")


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_precision_that_would_have_no_effect_is_refused(tmp_path: Path) -> None:
    script: Any = torch.jit.trace(torch.nn.Conv2d(2, 2, 3), torch.zeros(1, 2, 9, 9))  # type: ignore[no-untyped-call]
    script.save(str(tmp_path / "script.pt"))
    pixels, path = np.zeros((60, 50, 2), np.uint8), tmp_path / "script.pt"
    with pytest.raises(DeviceError, match="precision=bf16 has no effect on TorchScript on a CPU"):
        predict_large(pixels, path, precision="bf16", trust_model=True)
    found = predict_large(pixels, path, precision="fast", trust_model=True)
    assert found.report["precision"] == "fp32"
