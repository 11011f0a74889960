import numpy as np
import pytest
import torch

from tile_infer.engine.training.losses import (
    LOSSES,
    deeply_supervised,
    hybrid,
    soft_dice_loss,
    weighted_cross_entropy,
)

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(0, 2, (2, 3, 4, 5))
TRUTH = RANDOM.integers(0, 3, (2, 4, 5))
WEIGHTS = RANDOM.uniform(0.5, 10, (2, 4, 5))
TENSORS = torch.from_numpy(LOGITS), torch.from_numpy(TRUTH), torch.from_numpy(WEIGHTS)


def probabilities() -> np.ndarray:
    powers = np.exp(LOGITS)
    return np.asarray(powers / powers.sum(1, keepdims=True))


def test_cross_entropy_is_the_papers_energy_by_the_number_of_pixels() -> None:
    energy = 0.0
    for b, y, x in np.ndindex(TRUTH.shape):
        energy -= WEIGHTS[b, y, x] * np.log(probabilities()[b, TRUTH[b, y, x], y, x])
    assert float(weighted_cross_entropy(*TENSORS)) == pytest.approx(energy / TRUTH.size)


def dice_loss() -> float:
    coefficients = []
    for label in range(3):
        p, y = probabilities()[:, label], np.equal(TRUTH, label)
        coefficients.append(2 * (p * y).sum() / (p.sum() + y.sum()))
    return 1 - float(np.mean(coefficients))


def test_soft_dice_is_the_mean_of_the_classes() -> None:
    assert float(soft_dice_loss(*TENSORS[:2])) == pytest.approx(dice_loss())


def test_soft_dice_is_0_when_all_is_found_and_1_when_nothing_is() -> None:
    sure = torch.nn.functional.one_hot(TENSORS[1], 3).movedim(-1, 1) * 60.0
    assert float(soft_dice_loss(sure, TENSORS[1])) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice_loss(-sure, TENSORS[1])) == pytest.approx(1, abs=1e-6)


def test_a_class_that_the_tiles_do_not_show_does_not_count() -> None:
    truth = torch.zeros((1, 4, 5), dtype=torch.int64)
    sure = torch.tensor([60.0, 0.0, 0.0])[None, :, None, None].expand(1, 3, 4, 5)
    assert float(soft_dice_loss(sure, truth)) == pytest.approx(0, abs=1e-6)


def test_the_hybrid_is_half_the_cross_entropy_and_the_dice_loss() -> None:
    expected = 0.5 * float(weighted_cross_entropy(*TENSORS)) + dice_loss()
    assert float(hybrid(*TENSORS)) == pytest.approx(expected)


def test_every_head_has_the_same_say() -> None:
    logits, truth, weights = TENSORS
    heads = [logits, 0.5 * logits, -logits]
    expected = np.mean([float(hybrid(head, truth, weights)) for head in heads])
    assert float(deeply_supervised(hybrid, heads, truth, weights)) == pytest.approx(expected)


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_gradient_leads_to_the_truth(name: str) -> None:
    logits = torch.zeros((2, 3, 4, 5), dtype=torch.float64, requires_grad=True)
    LOSSES[name](logits, *TENSORS[1:]).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    downhill = (-logits.grad).argmax(1)
    assert torch.equal(downhill, TENSORS[1])
