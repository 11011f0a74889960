"""What a description says of tiles is held against what was measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tile_infer import plan_prediction
from tile_infer.tiler.errors import ModelError

from .backends.zoo_models import description, write_folder, write_network

IMAGE = np.random.default_rng(0).integers(0, 255, (50, 60)).astype(np.uint8)


def notes(folder: Path, network: dict[str, Any], said: dict[str, Any], **options: Any) -> str:
    folder.mkdir(exist_ok=True)
    weights = write_network(folder / "weights.onnx", **network)
    plan = plan_prediction(IMAGE, write_folder(folder, description(weights, **said)), **options)
    assert plan.exact
    return "; ".join(plan.notes)


TRUE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({}, {"size": {"min": 64, "step": 16}}),
    ({}, {"size": 64}),
    ({"size": 32}, {"size": 32}),
    ({"size": 32}, {"size": {"min": 16, "step": 8}}),
    ({"padded": False}, {"lost": 2, "halo": None}),
    ({"padded": False, "size": 32}, {"lost": 2, "halo": None, "size": 32}),
    ({"half": True}, {"pixel": 2.0}),
    ({"half": True, "size": 32}, {"pixel": 2.0, "size": 32}),
    ({"classes": 3}, {"classes": ("a", "b", "c")}),
]


@pytest.mark.parametrize(("network", "said"), TRUE)
def test_a_true_description_passes(
    tmp_path: Path, network: dict[str, Any], said: dict[str, Any]
) -> None:
    assert "halo" not in notes(tmp_path, network, said)


FALSE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"size": {"min": 16, "step": 3}}, r"16 \+ n \* 3 px along y, measured were 2 \+ n \* 2"),
    ({}, {"size": {"min": 17, "step": 2}}, r"17 \+ n \* 2 px along y, measured were 2 \+ n \* 2"),
    ({}, {"size": 33}, r"33 px along y, measured were 2 \+ n \* 2"),
    ({"size": 32}, {"size": 64}, "64 px along y, measured were 32"),
    ({"size": 32}, {"size": {"min": 64, "step": 2}}, r"64 \+ n \* 2 px along y, measured were 32"),
    ({"size": 32}, {"size": {"min": 16, "step": 6}}, r"16 \+ n \* 6 px along y, measured were 32"),
    ({"padded": False}, {"lost": 4, "halo": None}, "16 px give 12 px along y, measured were 14"),
    ({}, {"lost": 2}, "16 px give 14 px along y, measured were 16"),
    ({"half": True}, {}, "16 px give 16 px along y, measured were 8"),
    ({}, {"pixel": 0.5}, "16 px give 32 px along y, measured were 16"),
    ({"classes": 2}, {"classes": ("a", "b", "c")}, "3 output channels, measured were 2"),
    ({}, {"channels": 2}, "2 input channels, but the network takes 1"),
]


@pytest.mark.parametrize(("network", "said", "shown"), FALSE)
def test_a_false_description_is_an_error_that_names_both(
    tmp_path: Path, network: dict[str, Any], said: dict[str, Any], shown: str
) -> None:
    with pytest.raises(ModelError, match=shown) as caught:
        notes(tmp_path, network, said)
    assert "bioimageio.yaml says" in str(caught.value)


def test_a_tile_that_the_user_chose_wins_over_the_sizes(tmp_path: Path) -> None:
    said = {"size": {"min": 17, "step": 2}}
    with pytest.raises(ModelError, match="use tile"):
        notes(tmp_path, {}, said)
    notes(tmp_path, {}, said, tile=32)


@pytest.mark.parametrize(("halo", "noted"), [(1, True), (2, False), (5, False)])
def test_the_measured_halo_is_used_and_a_smaller_one_is_noted(
    tmp_path: Path, halo: int, noted: bool
) -> None:
    text = "halo along y and x: 2 + 2 px as measured, not 1 as bioimageio.yaml says"
    assert (text in notes(tmp_path, {}, {"halo": halo})) == noted
