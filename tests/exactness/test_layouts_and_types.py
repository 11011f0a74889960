"""Whatever the axes and numbers of an ONNX file's ends, the mask is that of one whole pass."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tile_infer import SettingError, inspect_network, plan_prediction, predict_large
from tile_infer.engine.backends import open_network

from .seeded_networks import SeededUNet, rarest_share, seeded, textured, unit
from .whole_pass import assert_whole_pass, logit_error, whole_pass

SIZES = {"b": 1, "y": 188, "x": 220}
LONGER = {"b": "batch", "y": "height", "x": "width"}
ENDINGS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "none": lambda y, axis: y,
    "softmax": lambda y, axis: y.softmax(axis),
    "sigmoid": lambda y, axis: y.sigmoid(),
    "argmax": lambda y, axis: y.argmax(axis),
    "argmax of softmax": lambda y, axis: y.softmax(axis).argmax(axis),
}


class Ends(nn.Module):
    """A network whose image and map have other axes, in another order, and other numbers."""

    def __init__(self, network: nn.Module, image: str, made: str, ending: str = "none") -> None:
        super().__init__()
        self.network, self.image, self.made, self.ending = network, image, made, ending
        self.number, self.divisor, self.result = torch.float32, 1.0, torch.float32

    def forward(self, image: Tensor) -> Tensor:
        missing = [axis for axis in "bcyx" if axis not in self.image]
        for _ in missing:
            image = image[None]
        order = "".join(missing) + self.image
        image = image.permute([order.index(axis) for axis in "bcyx"])
        logits = self.network(image.to(self.number) / self.divisor)
        wanted = "".join(axis for axis in "bcyx" if axis not in self.made)
        logits = logits.permute(["bcyx".index(axis) for axis in wanted + self.made])
        for _ in wanted:
            logits = logits[0]
        return ENDINGS[self.ending](logits, self.made.find("c")).to(self.result)


def write(
    path: Path,
    module: nn.Module,
    image: str,
    *,
    channels: int = 1,
    dtype: torch.dtype = torch.float32,
    free: str = "byx",
) -> Path:
    sizes = SIZES | {"c": channels}
    # The exporter knows no uint16: it is put into the file afterwards.
    wide = torch.int32 if dtype == torch.uint16 else dtype
    example = torch.zeros([sizes[axis] for axis in image], dtype=wide)
    axes = {place: LONGER[axis] for place, axis in enumerate(image) if axis in free}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of itself
        torch.onnx.export(
            module,
            (example,),
            str(path),
            dynamo=False,
            opset_version=18,
            input_names=["image"],
            output_names=["map"],
            dynamic_axes={"image": axes},
        )
    if dtype == torch.uint16:
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT16
        onnx.save(model, path)
    return path


def inspected(model: Path) -> tuple[int | None, int | None]:
    return open_network(model).facts.fixed


def check(
    model: Path, network: SeededUNet, image: NDArray[np.generic], fed: NDArray[np.floating]
) -> None:
    pixels = image[:, :, 0] if image.shape[2] == 1 else image
    tile = None if None not in inspected(model) else (124, 140)
    found = predict_large(pixels, model, output="logits", workers=2, tile=tile)
    reference = whole_pass(network, fed, network.shape)
    assert rarest_share(reference) >= 0.05
    assert found.plan.exact
    assert found.plan.grid.tiles > 1
    assert_whole_pass(found.logits, found, reference)


@pytest.mark.parametrize(
    ("image", "made", "ending", "free"),
    [
        ("byxc", "byxc", "none", "b"),
        ("byxc", "byxc", "softmax", "byx"),
        ("byxc", "byxc", "softmax", ""),
        ("byxc", "byxc", "argmax", "byx"),
        ("byxc", "byxc", "argmax of softmax", ""),
        ("byxc", "bcyx", "softmax", "byx"),
        ("bcyx", "byxc", "softmax", ""),
        ("bcyx", "byxc", "argmax", "byx"),
        ("bcyx", "cyx", "none", "byx"),
        ("bcyx", "cyx", "argmax of softmax", ""),
        ("cyx", "cyx", "softmax", "byx"),
        ("yxc", "yxc", "argmax", ""),
    ],
)
def test_several_classes_in_any_order_of_the_axes(
    tmp_path: Path, image: str, made: str, ending: str, free: str
) -> None:
    network = seeded(2, 1, channels=3, classes=3)
    model = write(
        tmp_path / "net.onnx", Ends(network, image, made, ending), image, channels=3, free=free
    )
    pixels = textured(230, 310, channels=3, seed=3)
    check(model, network, pixels, unit(pixels))


@pytest.mark.parametrize("ending", ["none", "sigmoid"])
@pytest.mark.parametrize(
    ("image", "made"),
    [
        ("bcyx", "byx"),
        ("byxc", "byx"),
        ("byx", "byx"),
        ("bcyx", "yx"),
        ("yx", "yx"),
        ("byx", "bcyx"),
    ],
)
def test_one_class_needs_no_axis(tmp_path: Path, image: str, made: str, ending: str) -> None:
    network = seeded(2, 0, classes=1)
    model = write(tmp_path / "net.onnx", Ends(network, image, made, ending), image)
    pixels = textured(230, 310, seed=3)
    check(model, network, pixels, unit(pixels))


@pytest.mark.parametrize("image", ["bcyx", "byxc"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "int64"])
def test_a_network_of_whole_numbers_is_given_the_raw_pixels(
    tmp_path: Path, dtype: str, image: str
) -> None:
    network = seeded(2, 1, classes=3)
    module = Ends(network, image, image)
    module.divisor = {"int8": 1.0, "uint16": 65535.0}.get(dtype, 255.0)
    kind = getattr(torch, dtype)
    model = write(tmp_path / "net.onnx", module, image, dtype=kind)
    pixels = textured(230, 310, dtype="uint16" if dtype == "uint16" else "uint8", seed=3)
    fed = unit(pixels)
    if dtype == "int8":  # -1, 0 and 1 are all that it knows of a faint picture
        pixels = np.rint(fed * 2 - 1).astype("int8")
        fed = pixels.astype(np.float32)
    found = plan_prediction(pixels[:, :, 0], model)
    assert found.network.input_dtype == dtype
    assert found.notes[0] == f"pixels as they are (the network takes {dtype})"
    assert found.grid.y.lead % 4 == 0
    check(model, network, pixels, fed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16])
def test_the_geometry_of_a_network_of_whole_numbers_is_that_of_its_floats(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    network = seeded(3, 1, classes=2)
    module = Ends(network, "bcyx", "bcyx")
    module.divisor = 255.0
    found = inspect_network(write(tmp_path / "net.onnx", module, "bcyx", dtype=dtype))
    assert found.verdict == "bounded"
    assert found.geometry == inspect_network(network).geometry
    assert found.geometry.x.halo_before == network.shape.padding_reach


class Pools(nn.Module):
    """Adds the mean of the whole tile."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)
        return logits + image.mean(dim=(2, 3), keepdim=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int8])
def test_noise_in_bytes_shows_a_mean_over_the_tile(tmp_path: Path, dtype: torch.dtype) -> None:
    module = Ends(Pools(seeded(2, 1, classes=2)), "bcyx", "bcyx")
    module.divisor = 255.0
    model = write(tmp_path / "net.onnx", module, "bcyx", dtype=dtype)
    assert inspect_network(model).verdict == "unbounded"


@pytest.mark.parametrize(
    ("options", "dtype", "message"),
    [
        ({"normalize": "unit"}, "uint8", r"takes uint8 pixels as they are, so normalize=unit"),
        ({"mean": 0.5, "std": 0.5}, "uint8", r"so mean and std \(as asked\) is not possible"),
        ({}, "uint16", "is uint16; convert the image to uint8"),
        ({}, "float32", "is float32; convert the image to uint8"),
    ],
)
def test_what_a_network_of_whole_numbers_cannot_be_given_is_refused(
    tmp_path: Path, options: dict[str, object], dtype: str, message: str
) -> None:
    model = write(
        tmp_path / "net.onnx", Ends(seeded(1, 1), "bcyx", "bcyx"), "bcyx", dtype=torch.uint8
    )
    pixels = textured(90, 90).astype(dtype)[:, :, 0]
    with pytest.raises(SettingError, match=message) as caught:
        plan_prediction(pixels, model, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inside", [torch.float32, torch.float64])
@pytest.mark.parametrize("image", ["bcyx", "byxc"])
def test_a_network_of_doubles(tmp_path: Path, image: str, inside: torch.dtype) -> None:
    network = seeded(2, 1, classes=3)
    module = Ends(seeded(2, 1, classes=3).to(inside), image, image, "softmax")
    module.number, module.result = inside, torch.float64
    model = write(tmp_path / "net.onnx", module, image, dtype=torch.float64)
    pixels = textured(230, 310, dtype="float32", seed=3).astype(np.float64)
    check(model, network, pixels, unit(pixels))


def test_a_network_that_makes_doubles_of_floats(tmp_path: Path) -> None:
    network = seeded(2, 1, classes=3)
    module = Ends(network, "bcyx", "bcyx")
    module.result = torch.float64
    pixels = textured(230, 310, seed=3)
    check(write(tmp_path / "net.onnx", module, "bcyx"), network, pixels, unit(pixels))


def test_a_network_of_halves_is_within_their_rounding(tmp_path: Path) -> None:
    network = seeded(2, 1, classes=3)
    module = Ends(seeded(2, 1, classes=3).half(), "byxc", "byxc")
    module.number = torch.float16
    model = write(tmp_path / "net.onnx", module, "byxc", dtype=torch.float16)
    pixels = textured(230, 310, seed=3)
    found = predict_large(pixels[:, :, 0], model, output="logits")
    reference = whole_pass(network, unit(pixels), network.shape)
    assert found.logits is not None
    assert found.plan.network.input_dtype == "float16"
    assert 1e-5 < logit_error(np.asarray(found.logits), reference) < 1e-2


def test_a_batch_axis_that_is_the_first_class_by_mistake_is_refused(tmp_path: Path) -> None:
    """The file says of its map that the first axis is the batch, and it is not."""
    path = write(tmp_path / "net.onnx", Ends(seeded(1, 1, classes=3), "bcyx", "cyx"), "bcyx")
    model = onnx.load(path)
    model.graph.node.extend(
        [
            onnx.helper.make_node("Shape", ["map"], ["sizes"]),
            onnx.helper.make_node("Reshape", ["map", "sizes"], ["hidden"]),
        ]
    )
    model.graph.output[0].name = "hidden"
    for axis, name in zip(
        model.graph.output[0].type.tensor_type.shape.dim, ("batch", "y", "x"), strict=True
    ):
        axis.dim_param = name
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"returns a map of shape \(3, 1, 256, 256\) for 1 tiles"):
        inspect_network(path)
