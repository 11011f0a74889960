"""TorchScript and exported programs give the mask of the module that they were made of."""

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tile_infer import ModelError, SettingError, inspect_network, plan_prediction, predict_large
from tile_infer.engine.backends import open_network

from .seeded_networks import SeededUNet, rarest_share, seeded, textured, unit
from .whole_pass import TOLERANCE, assert_whole_pass, logit_error, whole_pass

DATA = Path(
    os.environ.get(
        "TILE_INFER_TEST_DATA", str(Path(__file__).resolve().parents[2] / "../shared/data")
    )
)
NUCLEI = DATA / "models/bioimageio_unet2d_nuclei_broad"
FREE = (None, None)


class Ended(nn.Module):
    def __init__(self, network: nn.Module, ending: str) -> None:
        super().__init__()
        self.network, self.ending = network, ending
        self.number, self.divisor = torch.float32, 1.0

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image.to(self.number) / self.divisor)
        if self.ending == "softmax":
            return logits.softmax(1)
        if self.ending == "sigmoid":
            return logits.sigmoid()
        if self.ending == "argmax":
            return logits.argmax(1)
        return logits[:, 0] if self.ending == "no class axis" else logits


def scripted(module: nn.Module, path: Path, size: int = 124) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch deprecates it, but files are there
        torch.jit.save(torch.jit.trace(module, torch.zeros(1, 1, size, size)), path)  # type: ignore[no-untyped-call]
    return path


def exported(
    module: nn.Module,
    path: Path,
    *,
    size: int | None = None,
    batch: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    dims: dict[int, Any] = {}
    if batch is None:
        dims[0] = torch.export.Dim("batch", min=1, max=64)
    if size is None:
        dims |= {axis: 4 * torch.export.Dim(f"d{axis}", min=11, max=500) for axis in (2, 3)}
    example = torch.zeros(batch or 2, 1, size or 124, size or 124).to(dtype)
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=(dims,)), path)
    return path


def check(network: SeededUNet, model: Path, image: NDArray[np.generic], **options: Any) -> None:
    found = predict_large(image[:, :, 0], model, output="logits", trust_model=True, **options)
    reference = whole_pass(network, unit(image), network.shape)
    assert rarest_share(reference) >= 0.05
    assert found.plan.exact
    assert found.plan.grid.tiles > 1
    assert_whole_pass(found.logits, found, reference)


CLASSES = {"none": 3, "softmax": 3, "argmax": 3, "sigmoid": 1, "no class axis": 1}
CASES = [
    *(("script", ending) for ending in CLASSES),
    *(("free", ending) for ending in ("none", "argmax", "no class axis")),
    *(("fixed", ending) for ending in ("softmax", "sigmoid")),
    *(("batch of 3", ending) for ending in ("none", "argmax")),
]


@pytest.mark.parametrize(("form", "ending"), CASES)
def test_the_mask_is_that_of_the_module(tmp_path: Path, form: str, ending: str) -> None:
    network = seeded(2, 1, classes=CLASSES[ending])
    module = Ended(network, ending).eval()
    tile = None
    if form == "script":
        model, tile = scripted(module, tmp_path / "net.pt"), (124, 124)
    elif form == "free":
        model, tile = exported(module, tmp_path / "net.pt2"), (124, 124)
    else:
        batch = 3 if form == "batch of 3" else 1
        model = exported(module, tmp_path / "net.pt2", size=124, batch=batch)
    probe = inspect_network(model, trust_model=True)
    assert probe.geometry.y.fixed == (form not in ("script", "free"))
    check(network, model, textured(230, 310, seed=3), tile=tile)


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    module = Ended(seeded(2, 0), "none").eval()
    path = exported(module, tmp_path / "Unet 3.pt2", size=124, batch=2)
    facts = open_network(path, trust_model=True).facts
    assert (facts.name, facts.backend, facts.head) == ("Unet 3", "torch", "0")
    assert (facts.channels, facts.fixed, facts.batch) == (1, (124, 124), 2)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    free = open_network(exported(module, tmp_path / "free.pt2"), trust_model=True).facts
    assert (free.channels, free.fixed, free.batch) == (1, FREE, None)
    script = open_network(scripted(module, tmp_path / "net.pt"), trust_model=True).facts
    assert (script.channels, script.fixed, script.batch) == (1, FREE, None)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float64])
def test_an_exported_program_is_given_the_numbers_it_was_made_for(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    network = seeded(2, 1, classes=3)
    module = Ended(network, "none").eval()
    image = textured(230, 310, seed=3)
    if dtype == torch.float64:
        module.number = torch.float64
        module.network = seeded(2, 1, classes=3).double()
    else:
        module.divisor = 255.0
    model = exported(module, tmp_path / "net.pt2", size=124, dtype=dtype)
    plan = plan_prediction(image[:, :, 0], model, trust_model=True)
    assert plan.network.input_dtype == str(dtype).removeprefix("torch.")
    assert plan.normalize == ("unit" if dtype == torch.float64 else "none")
    check(network, model, image)


def test_trust_is_needed_each_time_and_not_stored(tmp_path: Path) -> None:
    model = exported(Ended(seeded(1, 1), "none").eval(), tmp_path / "net.pt2", size=64)
    image, out = textured(90, 90)[:, :, 0], tmp_path / "mask.zarr"
    found = predict_large(image, model, out, trust_model=True)
    assert found.plan.settings.trust_model is None
    assert "trust" not in str(found.group.attrs["tile_infer"]).replace("'trust_model': None", "")
    for call in (
        lambda: predict_large(image, model, out),
        lambda: plan_prediction(image, model),
        lambda: inspect_network(model),
    ):
        with pytest.raises(SettingError, match="use trust_model"):
            call()
    again = predict_large(image, model, out, trust_model=True)
    assert again.report["blocks_run"] == 0


def test_channels_last_are_refused_in_one_line(tmp_path: Path) -> None:
    class Last(nn.Module):
        def __init__(self, first: str) -> None:
            super().__init__()
            self.inner, self.first = nn.Conv2d(3, 2, 1), first

        def forward(self, image: Tensor) -> Tensor:
            if self.first == "image":
                return torch.relu(self.inner(image.permute(0, 3, 1, 2)))
            return torch.relu(self.inner(image)).permute(0, 2, 3, 1)

    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Last("image"), (torch.zeros(1, 64, 64, 3),)), path)
    with pytest.raises(ModelError, match="with the channels last; export it with") as caught:
        open_network(path, trust_model=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="with the classes last; let it return") as caught:
        inspect_network(Last("map"))
    assert "\n" not in str(caught.value)


def test_two_images_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, one: Tensor, other: Tensor) -> Tensor:
            return one + other

    path, zeros = tmp_path / "net.pt2", torch.zeros(1, 1, 8, 8)
    torch.export.save(torch.export.export(Two(), (zeros, zeros)), path)
    with pytest.raises(ModelError, match="has 2 inputs"):
        open_network(path, trust_model=True)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data in {DATA}")
def test_a_published_script_says_what_its_onnx_file_says() -> None:
    image: NDArray[np.float32] = np.load(NUCLEI / "test_input.npy")[0, 0]
    masks = []
    for name in ("weights.pt", "weights.onnx"):
        found = predict_large(
            image, NUCLEI / name, normalize="zscore", output="logits", trust_model=True
        )
        assert found.plan.exact
        assert found.plan.probe.geometry.x.halo_before == 53
        assert found.logits is not None
        masks.append(np.asarray(found.logits))
    assert logit_error(masks[0], masks[1]) <= TOLERANCE
