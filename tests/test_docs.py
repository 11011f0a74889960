"""The documents say what the code does."""

import re
from pathlib import Path

from tile_infer.engine.backends.metadata import Metadata, decode

MODELS = (Path(__file__).resolve().parents[1] / "docs/models.md").read_text()


def test_the_example_of_a_models_metadata_is_valid() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", MODELS, re.DOTALL)
    assert decode(example, "docs/models.md").classes == ("background", "nucleus")


def test_the_table_of_keys_is_complete() -> None:
    table = MODELS[MODELS.index("| key |") : MODELS.index("Both places")]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line]
    keys = [key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)]
    assert keys == list(Metadata.__struct_fields__)
