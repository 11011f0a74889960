"""What the README says, is so."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_python_examples_run(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from tile_infer.engine.networks.export import export_onnx

    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("slide.tif", np.zeros((600, 700), np.uint8))
    export_onnx(torch.nn.Conv2d(1, 2, 3), "unet.onnx", in_channels=1)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example, "README.md", "exec"), {})
    lines = said.getvalue().splitlines()
    assert len(lines) == example.count("print(")
    expected = re.findall(r"print.*# (\d+)$", example, flags=re.M)
    assert set(expected) <= set(lines)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 2


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("results_file", None)
    return module


def test_every_table_is_what_the_results_give(tables: ModuleType) -> None:
    pages = [page.read_text() for page in tables.PAGES]
    for page in pages:
        assert tables.filled(page) == page
    for name in tables.TABLES:
        assert sum(f"<!-- {name} -->" in page for page in pages) == 1


def test_a_figure_that_was_typed_in_is_noticed(tables: ModuleType) -> None:
    changed = README.replace("of the largest |", "of the smallest |", 1)
    assert tables.filled(changed) == README != changed


def test_pictures_and_files_it_links_to_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
