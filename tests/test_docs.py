"""The documents say what the code does, and what they say is shown by the tests they name."""

import ast
import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

from tile_infer.engine.backends.metadata import Metadata, decode
from tile_infer.engine.stages import Stage, shares
from tile_infer.engine.throughput import Throughput

TESTS = Path(__file__).resolve().parent
FORMATS = (TESTS.parent / "docs" / "formats.md").read_text()
TRAINING = (TESTS.parent / "docs" / "training.md").read_text()
SPEED = (TESTS.parent / "docs" / "speed.md").read_text()
RELIABILITY = (TESTS.parent / "docs" / "reliability.md").read_text()
MODELS = (TESTS.parent / "docs" / "models.md").read_text()
_NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows(text: str) -> list[str]:
    """Return the rows of all tables, without heads and rulers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rulers = {i for i, line in enumerate(lines) if not line.strip("|- ")}
    return [line for i, line in enumerate(lines) if i not in rulers and i + 1 not in rulers]


def without_test(text: str) -> list[str]:
    """Return the rows whose last cell names no test, or one that is not there."""
    wrong = []
    for row in rows(text):
        named = _NAMED.findall(row.rstrip("| ").rpartition("|")[2])
        if not named or not all(name in functions(TESTS / file) for file, name in named):
            wrong.append(row)
    return wrong


def functions(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_names_tests_that_exist() -> None:
    assert without_test(FORMATS) == []
    assert len(rows(FORMATS)) > 30


def test_every_promise_names_tests_that_exist() -> None:
    table = RELIABILITY[RELIABILITY.index("| promise |") :]
    there = set().union(*(functions(path) for path in TESTS.rglob("test_*.py")))
    promises = rows(table)
    assert len(promises) > 15
    for row in promises:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= there, set(named) - there


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "tested",
        "`engine/sources/test_raster.py::test_nothing_of_the_kind`",
        "`engine/sources/test_absent.py::test_jpeg_equals_its_decoder`",
    ],
)
def test_a_row_without_its_test_is_noticed(cell: str) -> None:
    good = "`engine/sources/test_raster.py::test_jpeg_equals_its_decoder`"
    table = "| what | how far | test |\n|---|---|---|\n| a | b | {} |\n"
    assert without_test(table.format(good)) == []
    assert without_test(table.format(cell)) == [f"| a | b | {cell} |"]


def test_the_example_of_a_models_metadata_is_valid() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", MODELS, re.DOTALL)
    assert decode(example, "docs/models.md").classes == ("background", "nucleus")


def test_the_table_of_keys_is_complete() -> None:
    table = MODELS[MODELS.index("| key |") : MODELS.index("Both places")]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line]
    keys = [key for cell in first_cells for key in re.findall(r"`(\w+)`", cell)]
    assert keys == list(Metadata.__struct_fields__)


def test_the_options_of_training_are_there_with_the_defaults_the_page_states() -> None:
    from tile_infer.cli.train import train

    parameters = inspect.signature(train).parameters
    known = {f"--{name.replace('_', '-')}": each.default for name, each in parameters.items()}
    table = TRAINING[TRAINING.index("| part |") : TRAINING.index("The formula")]
    stated = re.findall(r"`(--[\w-]+)(?: ([\d.]+))?`", table)
    assert len(stated) > 15
    for option, default in stated:
        assert option in known, option
        if default:
            assert float(default) == known[option], option


def test_every_figure_and_stage_of_a_bench_is_explained() -> None:
    explained = set(re.findall(r"`(\w+)`", SPEED[: SPEED.index("Every run tells")]))
    figures = set(Throughput.__dataclass_fields__)
    assert figures - explained == set()
    stages = SPEED[SPEED.index("| stage |") : SPEED.index("**Device busy**")]
    first_cells = [line.split("|")[1].strip() for line in rows(stages)]
    assert sorted(first_cells) == sorted(shares(dict.fromkeys(get_args(Stage), 1.0)))
