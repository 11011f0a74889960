"""Neither the order of blocks, the batch, the workers, nor the sizes of anything show."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tile_infer import Plan, plan_prediction, predict_large

from ..engine.test_backends import needs_openvino
from .run_plan import chunks, run_plan, small_blocks
from .seeded_networks import SeededUNet, export, rarest_share, seeded, textured, unit
from .whole_pass import assert_whole_pass, whole_pass

IMAGE = textured(420, 530, seed=11)[:, :, 0]


@pytest.fixture(
    scope="module", params=["onnx", "torch", pytest.param("openvino", marks=needs_openvino)]
)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    module = seeded(3, 0, classes=3)
    if request.param == "torch":
        return module, module, request.param
    return module, export(module, tmp_path_factory.mktemp("order") / "net.onnx", 1), request.param


@pytest.fixture(scope="module")
def plan(network: Any) -> Plan:
    made = plan_prediction(
        IMAGE, network[1], tile=(188, 140), workers=2, output="logits", backend=network[2]
    )
    assert small_blocks(made).grid.blocks > 30
    return made


def test_blocks_in_any_order_give_the_same_bytes(network: Any, plan: Plan) -> None:
    small = small_blocks(plan)
    expected = chunks(run_plan(small, IMAGE, network[1]))
    order = np.random.default_rng(0).permutation(small.grid.blocks).tolist()
    assert chunks(run_plan(small, IMAGE, network[1], order)) == expected
    assert chunks(run_plan(small, IMAGE, network[1], order[::-1])) == expected


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_give_the_same_bytes(network: Any, plan: Plan, workers: int) -> None:
    small = small_blocks(plan)
    assert small.execution.threads == 1
    expected = chunks(run_plan(small, IMAGE, network[1]))
    other = replace(small, execution=replace(small.execution, workers=workers))
    found = chunks(run_plan(other, IMAGE, network[1]))
    assert found == expected


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batches_give_the_same_labels(network: Any, batch: int) -> None:
    module, model, backend = network
    found = predict_large(
        IMAGE, model, tile=(156, 156), batch_size=batch, workers=2, output="logits", backend=backend
    )
    assert found.plan.grid.tiles == 63  # neither even nor a multiple of 5
    assert_equal(found.logits, np.asarray(found), module)


@pytest.mark.parametrize("tile", [(116, 124), (188, 108), (116, 236), (500, 620)])
def test_tiles_of_any_size_give_the_same_labels(network: Any, tile: tuple[int, int]) -> None:
    module, model, backend = network
    found = predict_large(IMAGE, model, tile=tile, workers=2, output="logits", backend=backend)
    assert found.plan.grid.tile == tile
    assert_equal(found.logits, np.asarray(found), module)


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_blocks_of_any_size_give_the_same_labels(network: Any, plan: Plan, cores: int) -> None:
    module, model, _ = network
    mask = run_plan(small_blocks(plan, cores), IMAGE, model)
    assert_equal(mask.scores, np.asarray(mask.levels[0][:]), module)


def assert_equal(logits: Any, labels: Any, module: SeededUNet) -> None:
    reference = whole_pass(module, unit(IMAGE[:, :, None]), module.shape)
    assert rarest_share(reference) >= 0.05
    assert_whole_pass(logits, labels, reference)


def test_an_image_read_from_disk_is_no_other(network: Any, tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "image.tif", IMAGE, tile=(64, 128))
    _, model, backend = network
    from_file, in_memory = (
        predict_large(image, model, tile=(188, 140), workers=2, backend=backend)
        for image in (tmp_path / "image.tif", IMAGE)
    )
    assert np.array_equal(from_file, in_memory)
