"""Hostile names and metadata reach neither the terminal nor the JSON as they are."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
import tifffile
from rich.progress import Progress, TextColumn
from rich.table import Table

from tile_infer.cli import terminal as terminals
from tile_infer.cli.terminal import LONGEST_LINE, Terminal
from tile_infer.engine.naming import printable

from .conftest import Run, Write

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m[red]\u202egnp\r\nnote: all is well"
"""A title, a cleared screen, a colour, markup, a turned direction and a line of its own."""


def assert_harmless(text: str) -> None:
    for line in text.split("\n"):
        assert printable(line) == line


@pytest.fixture
def evil_network(bright: Path) -> Path:
    """A network whose metadata, output and nodes bear hostile names."""
    model = onnx.load(bright)
    classes = {"classes": [EVIL, f"tumour {EVIL}"]}
    onnx.helper.set_model_props(model, {"tile_infer": json.dumps(classes)})
    model.producer_name = model.graph.name = model.graph.doc_string = EVIL
    model.graph.output[0].name = model.graph.node[0].output[0] = model.graph.node[0].name = EVIL
    path = bright.with_name("evil\x1b[31m[bold]\nname.onnx")
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("verbose", [(), ("--verbose",)])
def test_a_hostile_image_and_model_are_segmented_and_told_of_in_plain_text(
    run: Run, tmp_path: Path, evil_network: Path, verbose: tuple[str, ...]
) -> None:
    path = tmp_path / "slide\x1b[2J[red]\nx.tif"
    pixels = np.full((40, 60), 255, np.uint8)
    tifffile.imwrite(path, pixels, description=EVIL.encode("latin-1", "ignore"), metadata=None)
    report = tmp_path / "run.json"
    done = run(path, "--model", evil_network, "--report", report, "--also", ".ome.tif", *verbose)
    assert done.code == 0, done.err
    assert_harmless(done.out + done.err)
    assert "[red]" in done.out, "markup is text"
    assert len([line for line in done.err.splitlines() if line == "note: all is well"]) == 0
    (mask,) = tmp_path.glob("*.zarr")
    assert printable(mask.name) == mask.name
    assert_harmless(report.read_text())
    found = json.loads(report.read_text())
    assert [row["name"] for row in found["classes"]] == [EVIL, f"tumour {EVIL}"]
    assert found["classes"][1]["share"] == 1
    (exported,) = tmp_path.glob("*.ome.tif")
    with tifffile.TiffFile(exported) as file:
        assert file.ome_metadata
        ElementTree.fromstring(file.ome_metadata)


@pytest.mark.parametrize("size", ["NaN", "INF", "-1", "1e300", "1e-300", "1e400", EVIL[:4]])
def test_pixels_of_an_impossible_size_leave_the_report_valid(
    run: Run, image: Write, bright: Path, size: str
) -> None:
    pixels = "SizeX='60' SizeY='40' SizeC='1' SizeZ='1' SizeT='1' DimensionOrder='XYCZT'"
    described = (
        "<?xml version='1.0'?><OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06'>"
        f"<Image ID='Image:0'><Pixels ID='Pixels:0' Type='uint8' {pixels} "
        f"PhysicalSizeX='{size}' PhysicalSizeY='{size}'><Channel ID='C:0' SamplesPerPixel='1'/>"
        "<TiffData IFD='0' PlaneCount='1'/></Pixels></Image></OME>"
    )
    path = image("slide.ome.tif")
    tifffile.imwrite(path, np.zeros((40, 60), np.uint8), description=described, metadata=None)
    done = run(path, "--model", bright, "--report", "run.json", "--also", ".ome.tif")
    assert done.code == 0, done.err
    assert_harmless(done.out + done.err)
    for written in (Path("run.json"), *Path().rglob("zarr.json")):
        json.loads(written.read_text(), parse_constant=refuse_constant)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_plan_and_inspect_tell_of_hostile_names_in_plain_text(
    run: Run, image: Write, evil_network: Path
) -> None:
    for tokens in (["plan", image(), "--model"], ["inspect"]):
        for json_too in ((), ("--json",)):
            done = run(*tokens, evil_network, *json_too)
            assert done.code == 0, done.err
            assert_harmless(done.out + done.err)
            if json_too:
                assert isinstance(json.loads(done.out), dict)


@pytest.mark.parametrize("name", ["\x1b[2J.tif", "[/red].tif", "a\nerror: b.tif"])
def test_errors_about_hostile_names_are_one_plain_line(run: Run, bright: Path, name: str) -> None:
    done = run(name, "--model", bright)
    assert done.code == 1
    assert_harmless(done.err)
    assert len(done.err.splitlines()) == 1
    unknown = run("slide.tif", "--model", bright, f"--{name}")
    assert unknown.code == 2
    assert_harmless(unknown.err)


def test_a_table_a_bar_and_a_traceback_show_plain_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Terminal()
    table = Table(EVIL)
    table.add_row(EVIL)
    terminal.print(table)
    try:
        raise ValueError(EVIL)
    except ValueError:
        terminal.traceback()
    bar = Progress(TextColumn("{task.description}", markup=False), console=terminal.stderr)
    bar.add_task(EVIL)
    terminal.stderr.print(bar)
    said = capsys.readouterr()
    assert_harmless(said.out + said.err)
    assert "[red]" in said.out


def test_colours_of_our_own_still_reach_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Terminal().error(EVIL)
    said = capsys.readouterr().err
    assert re.match("\x1b\\[[0-9;]+merror:\x1b\\[0m", said)
    assert_harmless(re.sub("\x1b\\[[0-9;]*m", "", said))


def test_without_the_replacing_a_name_would_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminals, "printable", lambda text: text)
    Terminal().error(EVIL)
    assert "\x1b[2J" in capsys.readouterr().err


def test_a_very_long_text_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().warning("x" * 1_000_000)
    assert len(capsys.readouterr().err) < LONGEST_LINE + 100
