from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tile_infer.engine.backends.metadata import Metadata
from tile_infer.engine.networks.checkpoint import load_checkpoint
from tile_infer.engine.networks.registry import build
from tile_infer.engine.training import trainer
from tile_infer.engine.training.images import Labelled
from tile_infer.engine.training.losses import LOSSES
from tile_infer.engine.training.objects import truth_of
from tile_infer.engine.training.progress import Progress
from tile_infer.engine.training.settings import TrainingSettings
from tile_infer.engine.training.trainer import Subject, Trained, train
from tile_infer.engine.training.validation import Score
from tile_infer.tiler.errors import NumericError, SettingError

SUBJECT = Subject(
    "unet",
    {"in_channels": 1, "classes": 2, "width": 4, "depth": 1, "dropout": 0.2},
    ("background", "disc"),
    Metadata(classes=("background", "disc"), normalize="unit"),
)
SETTINGS = TrainingSettings(
    steps=12, validate_every=3, tile=60, optimizer="adam", rate=0.01, batch=2, warm_up=1, threads=1
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def discs(seed: int) -> Labelled:
    """Bright discs on a dark ground, under noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:90, :80]
    labels = np.zeros((90, 80), np.uint8)
    for centre in random.uniform(0, 80, (9, 2)):
        labels |= (np.hypot(y - centre[0], x - centre[1]) < 7).astype(np.uint8)
    pixels = (60 + 90 * labels + random.normal(0, 30, labels.shape)).clip(0, 255).astype(np.uint8)
    truth = truth_of(labels, "binary")
    return Labelled(f"discs {seed}", pixels[..., None], truth, (0.0,), (1 / 255,))


IMAGES, VALIDATION = [discs(0), discs(1)], [discs(2)]


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.network.state_dict())


def same(one: Trained, other: Trained) -> bool:
    pairs = zip(weights(one).values(), weights(other).values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


class StoppedError(Exception):
    pass


def stop_at(step: int) -> Callable[[Progress], None]:
    def progress(at: Progress) -> None:
        if at.step == step:
            raise StoppedError

    return progress


def test_an_interrupted_training_continues_with_the_same_result(tmp_path: Path) -> None:
    straight = train(SUBJECT, IMAGES, VALIDATION, SETTINGS, tmp_path / "straight.pt")
    for step in (5, 10):
        with pytest.raises(StoppedError):
            train(SUBJECT, IMAGES, VALIDATION, SETTINGS, tmp_path / "cut.pt", stop_at(step))
    done: list[int] = []
    resumed = train(
        SUBJECT,
        IMAGES,
        VALIDATION,
        SETTINGS,
        tmp_path / "cut.pt",
        lambda progress: done.append(progress.step),
    )
    assert done == [10, 11, 12]
    assert same(straight, resumed)
    assert straight.best_step == resumed.best_step
    for row, other in zip(straight.rows, resumed.rows, strict=True):
        assert replace(row, seconds=0) == replace(other, seconds=0)
    last = [load_checkpoint(tmp_path / f"{name}.pt").training for name in ("straight", "cut")]
    for name, tensor in last[0]["last"].items():
        assert torch.equal(tensor, last[1]["last"][name])
    other_seed = replace(SETTINGS, seed=1)
    assert not same(train(SUBJECT, IMAGES, VALIDATION, other_seed, tmp_path / "b.pt"), straight)


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(SUBJECT, IMAGES, [], replace(SETTINGS, steps=1), tmp_path / "a.pt")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("optimizer", "loss", "rate"),
    [("sgd", "cross_entropy", 0.003), ("adam", "hybrid", 0.01), ("adam", "cross_entropy", 0.01)],
)
def test_discs_are_learnt(tmp_path: Path, optimizer: str, loss: str, rate: float) -> None:
    settings = TrainingSettings(
        steps=200,
        validate_every=50,
        tile=60,
        optimizer=optimizer,  # type: ignore[arg-type]
        loss=loss,  # type: ignore[arg-type]
        rate=rate,
        batch=2,
    )
    wider = replace(SUBJECT, options={**SUBJECT.options, "width": 8})
    trained = train(wider, IMAGES, VALIDATION, settings, tmp_path / "a.pt")
    assert trained.rows[-1].dice > 0.85
    assert trained.rows[-1].loss < 0.7 * trained.rows[0].loss
    assert trained.finished


def test_the_best_weights_are_returned_and_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = iter([0.5, 0.9, 0.7, 0.6])
    seen: list[dict[str, torch.Tensor]] = []

    def pretend(network: torch.nn.Module, *_: object) -> Score:
        seen.append({name: part.clone() for name, part in network.state_dict().items()})
        return Score(1.0, next(dice), 0.5, 0.1)

    monkeypatch.setattr(trainer, "validate", pretend)
    trained = train(SUBJECT, IMAGES, VALIDATION, SETTINGS, tmp_path / "a.pt")
    assert trained.best_step == 6
    found = weights(trained)
    assert all(torch.equal(part, found[name]) for name, part in seen[1].items())
    assert not all(torch.equal(part, found[name]) for name, part in seen[3].items())


def test_training_ends_when_patience_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = iter([0.5, 0.6, 0.6, 0.55, 0.9])
    monkeypatch.setattr(trainer, "validate", lambda *_: Score(1.0, next(dice), 0.5, 0.1))
    settings = replace(SETTINGS, steps=15, patience=2)
    trained = train(SUBJECT, IMAGES, VALIDATION, settings, tmp_path / "a.pt")
    assert (trained.finished, trained.rows[-1].step, trained.best_step) == (True, 12, 6)
    again = train(SUBJECT, IMAGES, VALIDATION, settings, tmp_path / "a.pt")
    assert again.rows == trained.rows


def test_when_the_time_is_up_the_training_is_unfinished_and_continues(tmp_path: Path) -> None:
    hurried = replace(SETTINGS, minutes=1e-9)
    first = train(SUBJECT, IMAGES, VALIDATION, hurried, tmp_path / "a.pt")
    assert (first.finished, first.rows[-1].step) == (False, 3)
    last = train(SUBJECT, IMAGES, VALIDATION, SETTINGS, tmp_path / "a.pt")
    straight = train(SUBJECT, IMAGES, VALIDATION, SETTINGS, tmp_path / "b.pt")
    assert last.finished
    assert same(last, straight)


def test_a_loss_that_is_nan_stops_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "a.pt", iter(range(1, 100))
    true_loss = LOSSES["cross_entropy"]

    def spoilt(*tensors: torch.Tensor) -> torch.Tensor:
        return true_loss(*tensors) * (float("nan") if next(steps) == 8 else 1.0)

    monkeypatch.setitem(LOSSES, "cross_entropy", spoilt)
    with pytest.raises(NumericError, match=r"loss is nan at step 8; use a smaller rate .* step 6"):
        train(SUBJECT, IMAGES, VALIDATION, SETTINGS, path)
    kept = load_checkpoint(path)
    assert kept.training["step"] == 6
    assert all(bool(torch.isfinite(part).all()) for part in kept.training["last"].values())
    monkeypatch.setitem(LOSSES, "cross_entropy", true_loss)
    slower = train(SUBJECT, IMAGES, VALIDATION, replace(SETTINGS, rate=0.001), path)
    assert [row.step for row in slower.rows] == [3, 6, 9, 12]


def test_weights_that_a_step_made_nan_do_not_overwrite_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "a.pt", iter(range(1, 100))
    true_step = torch.optim.Adam.step

    def spoil(optimizer: torch.optim.Adam) -> None:
        true_step(optimizer)
        if next(steps) == 6:
            with torch.no_grad():
                next(networks[0].parameters()).fill_(float("nan"))

    networks: list[torch.nn.Module] = []

    def remember(name: str, **options: object) -> torch.nn.Module:
        networks.append(build(name, **options))
        return networks[-1]

    monkeypatch.setattr(trainer, "build", remember)
    monkeypatch.setattr(torch.optim.Adam, "step", spoil)
    with pytest.raises(NumericError, match=r"weight is NaN .* step 6.* keeps step 3"):
        train(SUBJECT, IMAGES, VALIDATION, SETTINGS, path)
    assert load_checkpoint(path).training["step"] == 3


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"optimizer": "sgd"}, "made with optimizer=adam, not sgd"),
        ({"seed": 9}, "made with seed=0, not 9"),
    ],
)
def test_a_checkpoint_of_other_settings_is_not_continued(
    tmp_path: Path, change: dict[str, object], part: str
) -> None:
    path = tmp_path / "a.pt"
    train(SUBJECT, IMAGES, VALIDATION, replace(SETTINGS, steps=3), path)
    with pytest.raises(SettingError, match=part):
        train(SUBJECT, IMAGES, VALIDATION, replace(SETTINGS, **change), path)  # type: ignore[arg-type]
    narrower = replace(SUBJECT, options={**SUBJECT.options, "width": 2})
    with pytest.raises(SettingError, match="'width': 4"):
        train(narrower, IMAGES, VALIDATION, SETTINGS, path)


def test_weights_are_not_continued_with_another_normalisation(tmp_path: Path) -> None:
    path, some = tmp_path / "a.pt", replace(SETTINGS, steps=3)
    train(SUBJECT, IMAGES, VALIDATION, some, path)
    classes = SUBJECT.metadata.classes
    means = Metadata(classes=classes, mean=(0.123456789,), std=(0.1,))
    for other in (Metadata(classes=classes, normalize="zscore"), means):
        with pytest.raises(SettingError, match=r"normalised by normalize=unit, not by"):
            train(replace(SUBJECT, metadata=other), IMAGES, VALIDATION, some, path)
    train(replace(SUBJECT, metadata=means), IMAGES, VALIDATION, some, tmp_path / "b.pt")
    again = train(replace(SUBJECT, metadata=means), IMAGES, VALIDATION, some, tmp_path / "b.pt")
    assert again.finished
    closer = Metadata(classes=classes, mean=(0.123456788,), std=(0.1,))
    with pytest.raises(SettingError, match=r"normalised by mean \(0\.123456789,\)"):
        train(replace(SUBJECT, metadata=closer), IMAGES, VALIDATION, some, tmp_path / "b.pt")


def test_a_class_that_only_the_validation_images_show_is_told(tmp_path: Path) -> None:
    empty = replace(discs(4), truth=truth_of(np.zeros((90, 80), np.uint8), "binary"))
    with pytest.raises(SettingError, match=r"class 1 \(disc\) is shown only by images that are me"):
        train(SUBJECT, [empty], VALIDATION, SETTINGS, tmp_path / "a.pt")
    with pytest.raises(SettingError, match=r"class 1 \(disc\) is missing in all 1 label images"):
        train(SUBJECT, [empty], [empty], SETTINGS, tmp_path / "a.pt")


def test_figures_are_told_at_the_step_they_belong_to(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    train(
        SUBJECT,
        IMAGES,
        VALIDATION,
        replace(SETTINGS, steps=7),
        tmp_path / "a.pt",
        lambda progress: told.append((progress.step, len(progress.rows))),
    )
    assert told == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 3)]


def test_other_images_are_not_continued_with(tmp_path: Path) -> None:
    train(SUBJECT, IMAGES, VALIDATION, replace(SETTINGS, steps=3), tmp_path / "a.pt")
    with pytest.raises(SettingError, match="made from other images or labels"):
        train(SUBJECT, IMAGES[:1], VALIDATION, SETTINGS, tmp_path / "a.pt")


def test_other_pixels_under_the_same_labels_are_not_continued_with(tmp_path: Path) -> None:
    train(SUBJECT, IMAGES, VALIDATION, replace(SETTINGS, steps=3), tmp_path / "a.pt")
    brighter = replace(IMAGES[0], pixels=IMAGES[0].pixels + np.uint8(1))
    with pytest.raises(SettingError, match="made from other images or labels"):
        train(SUBJECT, [brighter, IMAGES[1]], VALIDATION, SETTINGS, tmp_path / "a.pt")


def test_of_weights_with_the_same_dice_those_with_the_smaller_loss_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.9, 0.5, 0.7, 0.8])
    monkeypatch.setattr(trainer, "validate", lambda *_: Score(next(losses), 0.0, 0.0, 0.1))
    trained = train(SUBJECT, IMAGES, VALIDATION, SETTINGS, tmp_path / "a.pt")
    assert trained.best_step == 2 * SETTINGS.validate_every


def test_patience_without_images_to_measure_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="patience needs images to measure on"):
        train(SUBJECT, IMAGES, [], replace(SETTINGS, patience=2), tmp_path / "a.pt")


def test_an_image_smaller_than_a_tile_is_learnt_from(tmp_path: Path) -> None:
    small = discs(3)
    truth = truth_of(small.truth.classes[:20, :30], "binary")
    small = replace(small, pixels=small.pixels[:20, :30], truth=truth)
    trained = train(SUBJECT, [small], [small], replace(SETTINGS, steps=30), tmp_path / "a.pt")
    assert trained.rows[-1].loss < trained.rows[0].loss
    assert trained.tile.output_px > 30


def test_the_rate_rises_and_falls() -> None:
    settings = TrainingSettings(steps=100, rate=0.1, warm_up=9, schedule="constant")
    assert [settings.rate_at(step) for step in (1, 5, 10, 100)] == pytest.approx(
        [0.01, 0.05, 0.1, 0.1]
    )
    falling = TrainingSettings(steps=100, rate=0.1, warm_up=0)
    assert falling.rate_at(1) == pytest.approx(0.1)
    assert falling.rate_at(51) == pytest.approx(0.05)
    assert 0 < falling.rate_at(100) < 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"momentum": 1.0},
        {"optimizer": "lion"},
        {"loss": "mse"},
        {"patience": 0},
        {"seed": -1},
        {"seed": 1 << 32},
        {"minutes": -1.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(wrong))):
        TrainingSettings(**wrong)  # type: ignore[arg-type]
