"""The rules of the repository that no linter knows."""

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("api", "tiler", "engine", "cli")
MAY_IMPORT = {
    "tiler": {"tiler"},
    "engine": {"engine", "tiler"},
    "cli": {"cli", "engine", "tiler", "api"},
    "api": {"api", "engine", "tiler"},
}
OPTIONAL = {"torch", "dask", "distributed", "openvino", "openslide", "scipy", "PIL", "obstore"}


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path, source: str | None = None) -> list[tuple[str, bool]]:
    """Return the dotted name of each import, and whether it runs when the module is imported.

    A relative import gives the name from the repository's root: ``from ...tiler.box import Box`` in
    ``engine/sources`` is ``tiler.box``.
    """
    package = path.relative_to(ROOT).with_suffix("").parts
    if package[0] == "api":  # api/__init__.py is the package itself, and the folders lie inside it
        package = package[1:]
    tree = ast.parse(path.read_text() if source is None else source)
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(name.name, id(node) in top) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level] if node.level else ()
            found.append((".".join([*base, node.module or ""]), id(node) in top))
    return found


def upward(path: Path, source: str | None = None) -> set[str]:
    """Return the folders that a module imports and must not."""
    folders = {name.split(".")[0] for name, _ in imports(path, source)} & set(FOLDERS)
    return folders - MAY_IMPORT[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_one_way(path: Path) -> None:
    assert upward(path) == set()


def test_an_import_that_points_upwards_is_noticed() -> None:
    assert upward(ROOT / "tiler" / "axis.py", "from ..engine.plan import Plan") == {"engine"}
    assert upward(ROOT / "engine" / "sources" / "tiff.py", "from ...cli import main") == {"cli"}
    assert upward(ROOT / "engine" / "plan.py", "from ..tiler.box import Box") == set()
    assert imports(ROOT / "api" / "__init__.py", "from .engine.plan import Plan") == [
        ("engine.plan", True)
    ]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_a_top_level_folder_by_its_bare_name(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & set(FOLDERS)


def test_tiler_needs_numpy_only() -> None:
    for path in (ROOT / "tiler").rglob("*.py"):
        outside = {name.split(".")[0] for name, _ in imports(path)} - {"tiler", "numpy"}
        assert outside <= set(sys.stdlib_module_names), path


def test_optional_libraries_are_imported_where_they_are_used() -> None:
    allowed = {"torch.py", "torch_recorder.py", "torch_hash.py", "torch_runner.py"}
    allowed |= {"torch_graph.py", "torch_folding.py", "torch_layout.py", "torch_quick.py"}
    allowed |= {"torch_transfer.py", "torch_sizes.py", "torch_operators.py", "torch_layers.py"}
    allowed |= {"torch_resize.py", "onnx_module.py", "onnx_torch.py"}
    allowed |= {"network.py", "layers.py", "unet.py", "nested.py", "fcn.py", "vgg.py"}
    allowed |= {
        "cluster.py",
        "cluster_worker.py",
        "local_cluster.py",
        "upsampling.py",
        "losses.py",
        "validation.py",
        "trainer.py",
    }
    for path in modules():
        if path.name not in allowed:
            for name, at_import in imports(path):
                assert not (at_import and name.split(".")[0] in OPTIONAL), path


def test_the_packages_list_is_complete() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in modules()}
    expected = {
        "tile_infer"
        if path.name == "api"
        else ".".join(["tile_infer", *path.relative_to(ROOT).parts])
        for path in folders
    }
    assert set(config["packages"]) == expected
    for package, folder in config["package-dir"].items():
        relative = package.removeprefix("tile_infer").removeprefix(".").replace(".", "/") or "api"
        assert folder == relative


def test_every_folder_of_modules_is_a_package_and_the_root_is_none() -> None:
    for path in modules():
        assert (path.parent / "__init__.py").exists()
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "tile_infer").exists()


def test_the_wheel_holds_every_module_and_nothing_else(tmp_path: Path) -> None:
    # Built from a copy: a build folder left behind would put deleted modules into the wheel.
    copy = tmp_path / "copy"
    left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "demo")
    shutil.copytree(ROOT, copy, ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {"tile_infer/py.typed", "tile_infer/engine/networks/demo.onnx"}
    for path in modules():
        parts = path.relative_to(ROOT).parts
        expected.add("/".join(["tile_infer", *(parts[1:] if parts[0] == "api" else parts)]))
    assert names == expected
