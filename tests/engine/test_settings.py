"""Options that cannot work are refused at once, in one line that says what would."""

from typing import Any

import numpy as np
import pytest

from tile_infer.engine.settings import Settings
from tile_infer.tiler.errors import SettingError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold=1.5 is not possible; use 0 < threshold < 1"),
        ({"batch_size": 0}, "batch_size=0 is not possible; use 1 or more"),
        ({"overlap": 0.5}, "overlap needs blend"),
        ({"blend": "hann", "overlap": 1.0}, "overlap=1.0 is not possible"),
        ({"mean": (0.5,)}, "mean and std go together"),
        ({"mean": (0.5,), "std": (0.0,)}, "values above 0"),
        ({"mean": (0.5,), "std": (0.1,), "normalize": "zscore"}, "contradict"),
        ({"halo": 16, "tolerance": 0.1}, "halo and tolerance contradict"),
        ({"blend": "hann", "halo": 16}, "halo and tolerance contradict it"),
        ({"channels": ()}, "channels="),
        ({"channels": (0, -1)}, "channels=0,-1 is not possible"),
        ({"tile": (0, 572)}, "tile=0x572 is not possible"),
        ({"tile": (572, 572, 3)}, "height and width"),
        ({"blend": "box"}, "blend='box' is unknown; use hann, gaussian, none"),
        ({"precision": "fp8"}, "precision='fp8' is unknown"),
        ({"trust_model": "yes"}, "trust_model='yes' is not possible; use True"),
        ({"output": "probs"}, "output='probs' is unknown"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_what_was_asked_for_counts_as_given() -> None:
    settings = Settings(precision="fp32", device="auto", level=0, trust_model=False)
    assert settings.given() == {"precision": "fp32", "level": 0}


def test_choices_fill_only_what_was_left_open() -> None:
    settings = Settings(level=2).resolved(level=0, precision="fp32")
    assert (settings.level, settings.precision) == (2, "fp32")


def test_numbers_of_numpy_become_plain_ones() -> None:
    settings = Settings(
        threshold=np.float64(0.4),
        halo=np.int64(4),  # type: ignore[arg-type]
        head=0,  # type: ignore[arg-type]
        channels=np.array([1, 0]),  # type: ignore[arg-type]
    )
    assert (settings.threshold, settings.halo, settings.head) == (0.4, 4, "0")
    assert settings.channels == (1, 0)
    assert type(settings.threshold) is float


@pytest.mark.parametrize("options", [{"memory": "4GB"}, {"channels": "a"}, {"workers": 1.5}])
def test_what_is_no_number_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="number"):
        Settings(**options)


def test_words_for_what_the_engine_finds_out_are_replaced_by_it() -> None:
    asked = Settings(device="cuda", precision="fast", backend="onnx", workers=3)
    found = asked.resolved(device="cuda:0", precision="bf16", backend="openvino", batch_size=2)
    assert (found.device, found.precision, found.batch_size) == ("cuda:0", "bf16", 2)
    assert (found.backend, found.workers) == ("onnx", 3), "what was asked for is kept"
    assert asked.given()["precision"] == "fast"
