"""What `import tile_infer` gives."""

from dataclasses import fields
from typing import get_type_hints

import tile_infer
from tile_infer.engine.settings import Options, Settings


def test_the_public_names_are_these() -> None:
    assert sorted(tile_infer.__all__) == [
        "DeviceError",
        "ImageError",
        "ModelError",
        "OutputError",
        "Plan",
        "Prediction",
        "Probe",
        "Progress",
        "SettingError",
        "TileInferError",
        "TileInferWarning",
        "__version__",
        "inspect_network",
        "plan_prediction",
        "predict_large",
    ]
    assert len(tile_infer.__all__) <= 15
    assert all(hasattr(tile_infer, name) for name in tile_infer.__all__)


def test_the_keywords_are_the_settings() -> None:
    hints = get_type_hints(Settings)
    assert get_type_hints(Options) == {field.name: hints[field.name] for field in fields(Settings)}


def test_errors_are_also_the_builtin_ones() -> None:
    assert issubclass(tile_infer.SettingError, ValueError)
    assert issubclass(tile_infer.ImageError, OSError)
    assert issubclass(tile_infer.OutputError, OSError)
    assert issubclass(tile_infer.ModelError, ValueError)
    assert issubclass(tile_infer.DeviceError, RuntimeError)
