"""Every network that can be exported is measured as derived by hand, and tiled exactly."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tile_infer import TileInferWarning, predict_large
from tile_infer.engine.networks.network import SegmentationNetwork
from tile_infer.engine.networks.registry import NETWORKS, build, options_of
from tile_infer.engine.probe import Probe

from .papers_networks import CASES, CLASSES, Case, as_trained, exported
from .seeded_networks import rarest_share, textured, unit
from .whole_pass import TOLERANCE, assert_whole_pass, logit_error, whole_pass

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
PLAIN = ("unet", "unet, same", "unetpp", "unetpp, L2", "fcn8s, transposed", "fcn8s, unpooling")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def image_of(case: Case, height: int = 150, width: int = 331) -> NDArray[np.generic]:
    return textured(height, width, case.channels, "uint8", seed=7)


@cache
def network_of(name: str) -> SegmentationNetwork:
    return as_trained(CASES[name], unit(image_of(CASES[name])))


def assert_geometry(probe: Probe, case: Case, size: tuple[int, int] | None) -> None:
    assert probe.verdict == "bounded"
    for place, axis in enumerate((probe.geometry.y, probe.geometry.x)):
        margin, reach = case.shape.margin, case.shape.padding_reach
        assert axis.period == case.shape.period
        assert (axis.margin_before, axis.margin_after) == (margin, margin)
        assert (axis.halo_before, axis.halo_after) == (reach, reach)
        if size is None:
            assert (axis.size, axis.step) == (case.shape.smallest, case.shape.period)
        else:
            assert (axis.size, axis.step) == (size[place], 0)


def assert_exact(
    path: Path, case: Case, network: SegmentationNetwork, tile: tuple[int, int] | None
) -> Probe:
    image = image_of(case)
    found = predict_large(image, path, axes="YXC", output="logits", tile=tile)
    assert found.plan.exact
    assert found.plan.grid.tiles > 1
    assert found.plan.network.class_names == CLASSES
    assert found.plan.normalize == "unit"
    reference = whole_pass(network, unit(image), case.shape)
    assert rarest_share(reference) >= 0.05
    assert_whole_pass(found.logits, found, reference)
    return found.plan.probe


def test_every_network_has_a_case() -> None:
    assert {case.network for case in CASES.values()} == set(NETWORKS)


@pytest.mark.parametrize("name", CASES)
def test_a_file_for_any_tile_is_measured_as_by_hand_and_exact(name: str, tmp_path: Path) -> None:
    case, network = CASES[name], network_of(name)
    path = exported(network, tmp_path / "net.onnx")
    # The probe is that of `tile-infer inspect`: it takes most of the time, so it runs once.
    assert_geometry(assert_exact(path, case, network, case.tile), case, None)


@pytest.mark.parametrize("name", PLAIN)
def test_a_file_for_one_tile_is_measured_as_by_hand_and_exact(name: str, tmp_path: Path) -> None:
    case, network = CASES[name], network_of(name)
    path = exported(network, tmp_path / "net.onnx", case.tile)
    assert_geometry(assert_exact(path, case, network, None), case, case.tile)


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "unet"])
def test_a_halo_of_a_quarter_is_not_enough(name: str, tmp_path: Path) -> None:
    case, network = CASES[name], network_of(name)
    path = exported(network, tmp_path / "net.onnx")
    image = image_of(case)
    with pytest.warns(TileInferWarning):
        found = predict_large(
            image,
            path,
            axes="YXC",
            output="logits",
            tile=case.tile,
            halo=case.shape.padding_reach // 4,
        )
    reference = whole_pass(network, unit(image), case.shape)
    assert found.logits is not None
    assert logit_error(np.asarray(found.logits), reference) > 10 * TOLERANCE


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the first table after some words of the document."""
    text = DOCUMENT.read_text()
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|---")) + 1
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_the_documents_table_is_that_of_the_networks() -> None:
    rows = rows_of("## What they are")
    assert {row[0].split("`")[1] for row in rows} == set(NETWORKS)
    for name, _, file, of, parameters, sizes, period, margin, halo in rows:
        network, *option = name.split("`")[1::2]
        channels, classes = map(int, of.split(","))
        options = {"in_channels": channels, "classes": classes, **options_of(network, option)}
        with torch.device("meta"):
            built = build(network, **options)
        assert sum(p.numel() for p in built.parameters()) == int(parameters.replace(",", ""))
        assert sizes == f"{built.smallest} + {built.period} k"
        assert file == f"`{NETWORKS[network].module}.py`"
        alike = {"padding=same": "unet, same"}
        key = alike[option[0]] if option else network
        shape = CASES[key if key in CASES else f"{key}, transposed"].shape
        assert (shape.period, shape.margin, shape.padding_reach) == (
            int(period),
            int(margin),
            int(halo),
        )
        assert (built.period, built.margin) == (shape.period, shape.margin)


def test_the_documents_other_tables_are_those_of_the_cases() -> None:
    for level, (name, parameters, period, halo) in enumerate(rows_of("| UNet++ |"), 1):
        with torch.device("meta"):
            pruned = build("unetpp", in_channels=3, classes=1).pruned(level)
        assert name == f"L{level}"
        assert sum(p.numel() for p in pruned.parameters()) == int(parameters.replace(",", ""))
        shape = CASES[f"unetpp, L{level}"].shape
        assert (shape.period, shape.padding_reach) == (int(period), int(halo))
    for way, _, *halos in rows_of("| `way` |"):
        for network, halo in zip(("fcn32s", "fcn16s", "fcn8s"), halos, strict=True):
            assert CASES[f"{network}, {way.strip('`')}"].shape.padding_reach == int(halo)
