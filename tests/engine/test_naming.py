"""Names of others are data: they end up in one part of a path, whatever is in them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from torch import nn

from tile_infer import predict_large
from tile_infer.engine.naming import LONGEST_BYTES, mask_name, printable

HOSTILE = ["../../etc/passwd", "a/b", "a\\b", "a\0b", "\x1b[2Jgone", "two\nlines", "x" * 5000]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_models_name_is_one_part_of_a_path(name: str) -> None:
    found = mask_name(Path("folder/slide.tif"), name)
    assert Path(found).name == found
    assert "\\" not in found
    assert printable(found) == found
    assert found.startswith("slide.")
    assert found.endswith(".zarr")
    assert len(found) <= LONGEST_BYTES + len(".zarr")


def test_long_names_are_cut_between_characters_and_stay_apart() -> None:
    one, other = (mask_name(Path(f"{'日' * 80}{end}.tif"), "unet") for end in "ab")
    assert one != other
    assert one.startswith("日" * 60)
    assert len(one.encode()) <= LONGEST_BYTES + len(".zarr")
    assert mask_name(Path("日本.tif"), "unet") == "日本.unet.zarr"


def test_a_module_of_a_hostile_name_writes_beside_its_image(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "slide.tif", np.zeros((40, 50), np.uint8))
    network = type("../../out\x1b[2J", (nn.Conv2d,), {})(1, 2, 3)
    prediction = predict_large(folder / "slide.tif", network)
    assert Path(prediction.report["mask"]).parent == folder
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_what_a_terminal_obeys_is_replaced_and_nothing_else() -> None:
    assert printable("a\x07b\x9bc\u202ed\u2028e\x7f") == "a?b?c?d?e?"
    for harmless in ("[red]Gewebe[/red]", "日本 🙂", "a: b, c; 100 %", "µm²"):
        assert printable(harmless) == harmless
