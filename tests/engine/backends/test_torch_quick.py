"""A Torch module runs as a graph where that gives its own logits, and as it is elsewhere."""

import re
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule

from tile_infer import ModelError, SettingError, plan_prediction, predict_large
from tile_infer.engine import sizing
from tile_infer.engine.backends import open_network, torch_quick
from tile_infer.engine.backends.base import Ending, Execution, Form, Recipe
from tile_infer.engine.backends.torch_folding import fold_batch_norms
from tile_infer.engine.backends.torch_graph import aten, trace
from tile_infer.engine.backends.torch_layout import put_channels_last
from tile_infer.engine.backends.torch_quick import LIMIT
from tile_infer.engine.networks.unet import UNet

TILE = (48, 64)
RECIPE = Recipe(
    dtype="uint8",
    channels=2,
    tile=TILE,
    offset=(100.0, 90.0),
    scale=(0.02, 0.03),
    crop=(0, 0),
    window=TILE,
    ends_in="none",
    classes=3,
    activation="softmax",
    threshold=0.5,
    labels=True,
    scores="logits",
)
CPU = Execution("cpu", backend="torch")
GRAPH = replace(CPU, form="graph")
COMPILED = replace(CPU, form="compiled")

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="there is no C++ compiler"
)


def unet() -> nn.Module:
    """Return a U-Net whose batch normalisations change what they are given."""
    torch.manual_seed(0)
    module = UNet(2, 3, 4, depth=2, padding="same", batch_norm=True)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    return module.eval()


def batches(count: int = 6) -> list[NDArray[np.generic]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (1, *TILE, 2), dtype=np.uint8) for _ in range(count)]


def form(module: nn.Module, wanted: Execution = GRAPH) -> tuple[Form, str]:
    return open_network(module).form(RECIPE, wanted)


def scores(module: nn.Module, execution: Execution) -> list[NDArray[np.floating]]:
    run = open_network(module).prepare(RECIPE, execution)
    found = [run(batch).scores for batch in batches()]
    return [each for each in found if each is not None]


def largest_difference(one: list[Any], other: list[Any]) -> float:
    errors = (abs(a - b).max() / abs(b).max() for a, b in zip(one, other, strict=True))
    return float(max(errors))


FORMS = [GRAPH, pytest.param(COMPILED, marks=needs_compiler)]


@pytest.mark.parametrize("execution", FORMS, ids=["graph", "compiled"])
def test_several_threads_get_the_bits_of_single_runs_and_the_modules_logits(
    execution: Execution,
) -> None:
    module = unet()
    assert form(module, execution) == (execution.form, "")
    run = open_network(module).prepare(RECIPE, execution)
    alone = [run(batch) for batch in batches()]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, batches() * 5))
    for index, found in enumerate(together):
        assert found.scores is not None
        assert alone[index % 6].scores is not None
        np.testing.assert_array_equal(found.scores, alone[index % 6].scores)
        np.testing.assert_array_equal(found.labels, alone[index % 6].labels)
    worst = largest_difference([found.scores for found in alone], scores(module, CPU))
    assert 0 < worst <= LIMIT, "no rounding at all: it was the module that ran"


def test_a_module_of_several_tiles_at_once_gives_each_its_own() -> None:
    run = open_network(unet()).prepare(RECIPE, GRAPH)
    found = run(np.concatenate(batches())).scores
    assert found is not None
    np.testing.assert_array_equal(found, np.concatenate(scores(unet(), GRAPH)))


@pytest.mark.parametrize("execution", FORMS, ids=["graph", "compiled"])
def test_the_module_is_left_as_it_was(execution: Execution) -> None:
    module = unet().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = open_network(module)
    network.prepare(RECIPE, execution)(batches(1)[0])
    network.close()
    assert all(part.training for part in module.modules())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.stride() == before[name].stride()
        assert not value.is_inference()
    module(torch.zeros(1, 2, *TILE)).sum().backward()  # and it can be trained


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "argmax"])
def test_an_activation_at_the_end_is_no_part_of_the_graph(ending: Ending) -> None:
    last: dict[str, Callable[[Tensor], Tensor]] = {
        "softmax": lambda x: x.softmax(1),
        "sigmoid": torch.sigmoid,
        "argmax": lambda x: x.argmax(1),
    }

    class Ended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = unet()

        def forward(self, image: Tensor) -> Tensor:
            return last[ending](self.inner(image))

    recipe = replace(RECIPE, ends_in=ending)
    network = open_network(Ended().eval())
    assert network.form(recipe, GRAPH) == ("graph", "")
    found = network.prepare(recipe, GRAPH)(batches(1)[0]).scores
    assert found is not None
    assert largest_difference([found], scores(unet(), CPU)[:1]) <= LIMIT


class Odd(nn.Module):
    """One convolution, and something that no graph of its operators can tell."""

    level: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.seen, self.kept = kind, 0, torch.ones(1)
        self.inner = nn.Conv2d(2, 3, 3, padding=1)
        self.register_buffer("level", torch.zeros(1))
        if kind == "hook":
            self.inner.register_forward_hook(lambda *_: None)

    def forward(self, image: Tensor) -> Any:
        if self.kind == "counter":
            self.seen += 1
        elif self.kind == "kept":
            self.kept = image.mean()
        elif self.kind == "buffer":
            self.level += 1
        elif self.kind == "input":
            image.mul_(2)
        elif self.kind == "random":
            return self.inner(image) + torch.rand(1)
        elif (self.kind == "branch" and image.mean() > 0) or (
            self.kind == "count" and (image > 0).sum() + 0 > 9
        ):
            return self.inner(image) * 2
        elif self.kind == "numpy":
            image = torch.from_numpy(image.numpy() * 2)
        return self.inner(image)


REASONS = {
    "hook": "has hooks",
    "counter": "keeps something on itself",
    "kept": "keeps something on itself",
    "buffer": "keeps something on itself|writes into its weights",
    "input": "writes into its weights or its input",
    "random": "random numbers",
    "branch": "cannot be traced",
    "count": "cannot be traced",
    "numpy": "cannot be traced|differs by",
}


@pytest.mark.parametrize("kind", REASONS)
def test_what_a_graph_cannot_tell_is_run_as_it_is(kind: str) -> None:
    found, why = form(Odd(kind))
    assert found == "module"
    assert re.search(REASONS[kind], why), why
    assert form(Odd("none")) == ("graph", "")


def test_a_plan_has_a_worker_per_core_for_a_graph_and_one_for_a_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizing, "cpu_cores", lambda: 3)
    image = np.zeros((3000, 3000, 2), np.uint8)
    graph = plan_prediction(image, Odd("none"), tile=(256, 256))
    assert (graph.execution.form, graph.workers, graph.execution.threads) == ("graph", 3, 1)
    alone = plan_prediction(image, Odd("counter"), tile=(256, 256))
    assert (alone.execution.form, alone.workers, alone.execution.threads) == ("module", 1, 3)
    (note,) = set(alone.notes) - set(graph.notes)
    assert note.endswith("one block at a time: it keeps something on itself while it runs")


def test_a_script_that_decides_by_what_it_sees_or_counts_is_run_as_it_is() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, image: Tensor) -> Any:
            return self.inner(image) if bool(image.mean() > 0) else -self.inner(image)

    class Counter(Branch):
        seen: int

        def __init__(self) -> None:
            super().__init__()
            self.seen = 0

        def forward(self, image: Tensor) -> Any:
            self.seen += 1
            return self.inner(image) + self.seen

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch deprecates it
        found = [form(torch.jit.script(module())) for module in (Branch, Counter)]
        plain = form(torch.jit.script(nn.Conv2d(2, 3, 3)))
        nested = form(torch.jit.trace(unet(), torch.zeros(1, 2, *TILE)))  # type: ignore[no-untyped-call]
    assert [each for each, _ in found] == ["module", "module"]
    assert "keeps something on itself" in found[1][1]
    assert plain == nested == ("graph", "")


@pytest.mark.parametrize("error", [3e-5, 1e-2, float("nan")])
def test_a_graph_that_gives_other_logits_is_not_used(
    monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    def spoil(graph: GraphModule) -> None:
        fold_batch_norms(graph)
        for name, weight in list(graph.named_buffers()):
            setattr(graph, name, weight * (1 + error))

    monkeypatch.setattr(torch_quick, "fold_batch_norms", spoil)
    found, why = form(unet())
    assert found == "module"
    assert "differs by" in why
    with pytest.raises(ModelError, match="cannot be run as the plan says") as caught:
        open_network(unet()).prepare(RECIPE, GRAPH)
    assert "\n" not in str(caught.value)


def traced(module: nn.Module) -> GraphModule:
    with torch.no_grad():
        return trace(module.eval(), module, torch.randn(1, 2, *TILE))[0]


def operators(graph: GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def normalized(convolution: nn.Module, **options: Any) -> nn.Module:
    norm = nn.BatchNorm2d(4, **options)
    if norm.running_var is not None and norm.running_mean is not None:
        nn.init.uniform_(norm.running_var, 0.1, 5)
        nn.init.normal_(norm.running_mean)
    return nn.Sequential(convolution, norm)


@pytest.mark.parametrize(
    ("module", "folded"),
    [
        (normalized(nn.Conv2d(2, 4, 3)), True),
        (normalized(nn.Conv2d(2, 4, 3, groups=2, bias=False), affine=False), True),
        (normalized(nn.ConvTranspose2d(2, 4, 2, 2)), True),
        (normalized(nn.ConvTranspose2d(2, 4, 2, 2, groups=2)), False),
        (normalized(nn.Conv2d(2, 4, 3), track_running_stats=False), False),
        (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3)), False),
    ],
)
def test_batch_norms_behind_convolutions_are_folded(module: nn.Module, folded: bool) -> None:
    graph = traced(module)
    fold_batch_norms(graph)
    assert any("batch_norm" in name for name in operators(graph)) != folded
    image = torch.randn(1, 2, *TILE)
    with torch.no_grad():
        torch.testing.assert_close(graph(image), module(image), rtol=0, atol=1e-5)


def test_a_convolution_that_others_see_is_not_folded() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = normalized(nn.Conv2d(2, 4, 3))

        def forward(self, image: Tensor) -> Tensor:
            seen = self.pair[0](image)  # type: ignore[index]
            return torch.cat([seen, self.pair[1](seen)], 1)  # type: ignore[index]

    graph = traced(Skips())
    fold_batch_norms(graph)
    assert any("batch_norm" in name for name in operators(graph))


def test_channels_come_last_but_where_sums_are_long() -> None:
    module = nn.Sequential(nn.Conv2d(2, 300, 3), nn.Conv2d(300, 4, 3), nn.Conv2d(4, 4, 3))
    graph = traced(module)
    put_channels_last(graph)
    image = torch.randn(1, 2, *TILE).contiguous(memory_format=torch.channels_last)
    layouts = []

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            found = super().run_node(n)
            if n.target is aten.convolution.default:
                layouts.append(found.is_contiguous(memory_format=torch.channels_last))
            return found

    with torch.no_grad():
        found = Watch(graph).run(image)
        torch.testing.assert_close(found, module(image), rtol=1e-4, atol=1e-4)
    assert layouts == [True, False, True]


def test_views_of_pixels_survive_the_other_layout() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 3, 1)

        def forward(self, image: Tensor) -> Tensor:
            x = self.inner(image)
            n, c, h, w = x.shape
            mixed = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            logits: Tensor = self.head(mixed)
            return logits

    assert form(Shuffled()) == ("graph", "")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_as_near_to_single_precision_as_the_module_in_half(
    precision: Any,
) -> None:
    narrow = replace(GRAPH, precision=precision)
    assert form(unet(), narrow) == ("graph", "")
    exact = scores(unet(), CPU)
    module = largest_difference(scores(unet(), replace(narrow, form="module")), exact)
    graph = largest_difference(scores(unet(), narrow), exact)
    assert 1e-5 < graph <= 2 * module


def test_what_cannot_be_compiled_is_run_without_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(torch._inductor, "compile", fail)
    image = np.zeros((100, 100, 2), np.uint8)
    with pytest.warns(UserWarning, match=r"not compiled: .*no C\+\+ compiler found"):
        found = predict_large(image, Odd("none"), compile=True)
    assert found.plan.execution.form == "graph"


@needs_compiler
def test_compiling_is_stored_with_the_plan() -> None:
    image = np.zeros((100, 100, 2), np.uint8)
    plan = plan_prediction(image, Odd("none"), compile=True)
    assert plan.execution.form == "compiled"
    assert plan != plan_prediction(image, Odd("none"))
    assert type(plan).from_dict(plan.to_dict()) == plan


def test_an_onnx_file_is_not_compiled(tmp_path: Any) -> None:
    from tile_infer.engine.networks.export import export_onnx

    export_onnx(nn.Conv2d(1, 2, 3), tmp_path / "a.onnx", in_channels=1)
    with pytest.raises(SettingError, match="leave compile out"):
        plan_prediction(np.zeros((50, 50), np.uint8), tmp_path / "a.onnx", compile=True)


def test_the_work_of_a_script_is_that_of_its_module() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch deprecates it
        script = torch.jit.trace(unet(), torch.zeros(1, 2, *TILE))  # type: ignore[no-untyped-call]
    layers = open_network(script).layers(2, TILE)
    assert layers == open_network(unet()).layers(2, TILE) != ()


LARGER = replace(RECIPE, tile=(64, 80), window=(64, 80))


class BySize(nn.Module):
    """Does something else with large tiles than with small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.inner(pixels)
        return found.relu() if pixels.shape[-1] > TILE[1] else found


@pytest.mark.parametrize(("make", "compared"), [(unet, 1), (BySize, 2)])
def test_what_was_compared_at_one_size_is_only_traced_at_another(
    make: Callable[[], nn.Module], compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Mock(wraps=torch_quick.quicken)
    monkeypatch.setattr("tile_infer.engine.backends.torch.quicken", counted)
    module = make().eval()
    tiles = np.random.default_rng(0).integers(0, 255, (1, *LARGER.tile, 2), dtype=np.uint8)
    with closing(open_network(module)) as network:
        assert network.form(RECIPE, GRAPH) == network.form(LARGER, GRAPH) == ("graph", "")
        found = network.prepare(LARGER, GRAPH)(tiles).scores
        wanted = network.prepare(LARGER, CPU)(tiles).scores
    assert counted.call_count == compared
    assert 0 < largest_difference([found], [wanted]) <= LIMIT
