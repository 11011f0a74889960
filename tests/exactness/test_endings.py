"""However a network ends, the mask is that of its logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tile_infer import ModelError, inspect_network, predict_large
from tile_infer.engine.networks.export import export_onnx

from .seeded_networks import SeededUNet, export, rarest_share, seeded, textured, unit
from .whole_pass import assert_whole_pass, clear_pixels, label_of, whole_pass

IMAGE = textured(230, 310, seed=3)

Ending = Callable[[Tensor], Tensor]


class Ended(nn.Module):
    def __init__(self, network: nn.Module, ending: Ending) -> None:
        super().__init__()
        self.network, self.ending = network, ending

    def forward(self, image: Tensor) -> Tensor:
        return self.ending(self.network(image))


SEVERAL: dict[str, Ending] = {
    "logits": lambda y: y,
    "softmax": lambda y: y.softmax(1),
    "log_softmax": lambda y: nn.functional.log_softmax(y, 1),
    "Softmax2d": nn.Softmax2d(),
    "argmax": lambda y: y.argmax(1),
    "argmax, keepdim": lambda y: y.argmax(1, keepdim=True),
    "argmax, unsqueeze": lambda y: y.argmax(1).unsqueeze(1),
    "argmax, uint8": lambda y: y.argmax(1).to(torch.uint8),
    "argmax, float": lambda y: y.argmax(1).float(),
    "max()[1]": lambda y: y.max(1)[1],
    "argmax(softmax)": lambda y: y.softmax(1).argmax(1),
}
ONE: dict[str, Ending] = {
    "logit": lambda y: y,
    "sigmoid": torch.sigmoid,
    "sigmoid_": lambda y: y.sigmoid_(),
    "sigmoid, squeeze": lambda y: y.sigmoid().squeeze(1),
}


def endings() -> list[Any]:
    return [pytest.param(3, ending, id=name) for name, ending in SEVERAL.items()] + [
        pytest.param(1, ending, id=name) for name, ending in ONE.items()
    ]


def build(form: str, module: nn.Module, folder: Path) -> Any:
    return module if form == "torch" else export(module, folder / "net.onnx", 1)


def check(module: SeededUNet, model: Any, **options: Any) -> None:
    found = predict_large(IMAGE[:, :, 0], model, output="logits", workers=2, **options)
    reference = whole_pass(module, unit(IMAGE), module.shape)
    assert rarest_share(reference) >= 0.05
    assert found.plan.exact
    assert_whole_pass(found.logits, found, reference)


@pytest.mark.parametrize(("classes", "ending"), endings())
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_an_ending_is_undone(form: str, classes: int, ending: Ending, tmp_path: Path) -> None:
    module = seeded(2, 1, classes=classes)
    check(module, build(form, Ended(module, ending), tmp_path))


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_saturated_softmax_hides_no_halo(form: str, tmp_path: Path) -> None:
    module = seeded(2, 1, classes=3)
    with torch.no_grad():
        for value in (module.head.weight, module.head.bias):
            assert value is not None
            value *= 300
    model = build(form, Ended(module, lambda y: y.softmax(1).argmax(1)), tmp_path)
    halo = inspect_network(model).geometry.x.halo_before
    assert halo == inspect_network(module).geometry.x.halo_before == module.shape.padding_reach
    check(module, model)


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_whole_numbers_without_an_argmax_are_refused(form: str, tmp_path: Path) -> None:
    module = Ended(seeded(2, 1, classes=1), lambda y: (y > 0).to(torch.int32))
    with pytest.raises(ModelError, match="logits") as caught:
        predict_large(IMAGE[:, :, 0], build(form, module, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("batch", "size"), [(2, (76, 92)), (3, (188, 188)), (1, (76, 76))])
def test_a_file_that_fixes_its_batch(tmp_path: Path, batch: int, size: tuple[int, int]) -> None:
    module = seeded(2, 0, classes=3)
    check(module, export(module, tmp_path / "net.onnx", 1, size, batch=batch))


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_more_classes_than_a_byte_holds(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(1, 300, 3)
    small = IMAGE[:60, :70]
    found = predict_large(small[:, :, 0], build(form, module, tmp_path), workers=2)
    image = np.pad(unit(small)[:, :, 0], 1, mode="reflect")
    with torch.inference_mode():
        reference = module(torch.from_numpy(image[None, None]))[0].numpy()
    assert found.mask.dtype == np.uint16
    clear = clear_pixels(reference)
    labels = np.asarray(found)
    assert np.array_equal(labels[clear], label_of(reference)[clear])
    assert labels.max() > 255


def test_a_module_in_training_mode_is_run_in_evaluation_mode_and_given_back() -> None:
    module = seeded(2, 1, classes=3)
    dropping = nn.Sequential(module, nn.Dropout(0.5)).train()
    module.eval()
    check(module, dropping)
    assert dropping.training
    assert dropping[1].training
    assert not module.training


class Chooses(nn.Module):
    """Does something to probabilities that a softmax in front of it must be kept for."""

    def __init__(self, what: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.inner, self.what = nn.Conv2d(1, 3, 3), what
        self.weights = nn.Parameter(torch.tensor([0.1, 1.0, 3.0])[:, None, None])

    def forward(self, pixels: Tensor) -> Tensor:
        chances: Tensor = self.inner(pixels).softmax(dim=1)
        if self.what == "one":
            return chances[:, 1:2]
        if self.what == "two":
            return chances[:, 1:]
        if self.what == "weighted":
            chances *= self.weights
        elif self.what == "emptied":
            chances = chances.clone()
            chances[:, 0] = 0
        return chances


@pytest.mark.parametrize("what", ["one", "two", "weighted", "emptied"])
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_what_is_done_to_probabilities_keeps_its_meaning(
    kind: str, what: str, tmp_path: Path
) -> None:
    module = Chooses(what)
    image = textured(150, 210)[:, :, :1]
    extended = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="reflect").astype(np.float32) / 255
    with torch.no_grad():
        chances = module(torch.from_numpy(extended.transpose(2, 0, 1)[None])).numpy()[0]
    expected = chances[0] > 0.5 if len(chances) == 1 else chances.argmax(axis=0)
    margin = (
        np.abs(chances[0] - 0.5)
        if len(chances) == 1
        else np.abs(np.diff(np.sort(chances, axis=0)[-2:], axis=0)[0])
    )
    model: Any = module
    if kind == "onnx":
        model = tmp_path / "net.onnx"
        export_onnx(module, model, in_channels=1)
    found = np.asarray(predict_large(image[:, :, 0], model))
    clear = margin > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])
