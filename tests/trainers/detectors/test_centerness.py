"""Centerness by hand, and what is shared by the detectors that learn it."""

import math

import pytest
import torch
from torch.nn import functional as F

from trainers.detectors.centerness import at_cells, centerness, distribution_loss, edges, factored, losses
from trainers.detectors.nms import best_pairs
from trainers.outputs import Outputs, Targets, Truth


def test_distances_go_left_up_right_and_down() -> None:
    point, box = torch.tensor([10.0, 20]), torch.tensor([7.0, 15, 17, 29])
    assert edges(point, box).tolist() == [3, 5, 7, 9]


def test_centerness_is_one_in_the_middle_and_falls_with_both_ratios() -> None:
    distance = torch.tensor([[4.0, 7, 4, 7], [1.0, 7, 4, 7], [4.0, 7, 1, 7], [1.0, 2, 4, 6], [1e-3, 5, 10, 5]])
    expected = [1, 0.5, 0.5, math.sqrt(1 / 4 * 2 / 6), 0.01]
    assert centerness(distance).tolist() == pytest.approx(expected)
    assert centerness(torch.zeros(0, 4)).shape == (0,)


def test_a_distance_beyond_the_last_bin_counts_as_just_before_it() -> None:
    logits = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    near = torch.tensor([[0.0, 7.9, 3.5, 2.0]] * 2)
    far = torch.tensor([[-1.0, 30, 3.5, 2.0]] * 2)
    torch.testing.assert_close(distribution_loss(logits, far), distribution_loss(logits, near))
    log_p = logits.log_softmax(-1)
    expected = -(log_p[:, 0, 0] + 0.1 * log_p[:, 1, 7] + 0.9 * log_p[:, 1, 8])
    expected = expected - log_p[:, 2, 3:5].mean(1) - log_p[:, 3, 2]
    torch.testing.assert_close(distribution_loss(logits, near), expected / 4)


def batch(positives: int) -> tuple[Outputs, Targets]:
    """Two images, one level of 2 by 3 cells, two classes; the first cells of the second image are positive."""
    generator = torch.Generator().manual_seed(0)
    cls, centred = (torch.randn(2, c, 2, 3, generator=generator).requires_grad_() for c in (2, 1))
    row = torch.arange(6, 6 + positives)
    label, level = row % 2, torch.zeros_like(row)
    empty = Truth([torch.zeros(0, 4)] * 2, [torch.zeros(0)] * 2, [(8, 12)] * 2, [0, 1], [(1.0, 1.0)] * 2)
    targets = Targets(row, level, label, torch.zeros(positives, 4), torch.ones(12, dtype=torch.bool), 1, empty)
    return Outputs([], [cls], own={"centerness": [centred]}), targets


def test_what_is_not_counted_has_no_class_loss_and_each_divisor_divides_its_own() -> None:
    outputs, targets = batch(3)
    counted = torch.arange(12) >= 2
    target, weight, by_box = (torch.tensor(x) for x in ([0.2, 0.9, 0.5], [0.5, 1.0, 2.0], [1.0, 3.0, 7.0]))
    found = losses(
        outputs,
        targets,
        {"box": by_box, "dfl": 2 * by_box},
        counted=counted,
        count=torch.tensor(5.0),
        weight=weight,
        target=target,
    )
    z = outputs.class_rows()
    real = torch.zeros(12, 2)
    real[[6, 7, 8], [0, 1, 0]] = 1
    p = torch.where(real == 1, z.sigmoid(), 1 - z.sigmoid())
    focal = -(0.75 - 0.5 * real) * (1 - p) ** 2 * p.log()
    torch.testing.assert_close(found["cls"], focal[2:].sum() / 5)
    said = outputs.own["centerness"][0][1].flatten()[:3]
    torch.testing.assert_close(
        found["centerness"], F.binary_cross_entropy_with_logits(said, target, reduction="sum") / 5
    )
    torch.testing.assert_close(found["box"], torch.tensor((0.5 + 3 + 14) / 3.5))
    torch.testing.assert_close(found["dfl"], 2 * found["box"])


def test_without_positives_everything_but_the_classes_costs_nothing() -> None:
    outputs, targets = batch(0)
    none = torch.zeros(0)
    counted = torch.ones(12)
    found = losses(outputs, targets, {"box": none}, counted=counted, count=torch.tensor(0.0), weight=none, target=none)
    assert found["box"] == found["centerness"] == 0 < found["cls"]
    sum(found.values()).backward()
    (centred,) = outputs.own["centerness"]
    assert centred.grad is not None and not centred.grad.any()


def test_scores_are_multiplied_by_the_centerness_of_their_own_cell_if_high_enough() -> None:
    outputs, _ = batch(0)
    logits = outputs.class_rows().unflatten(0, (2, 6))
    valid = torch.tensor([[True] * 5 + [False], [True] * 6])
    scores, cells, labels = best_pairs(logits, valid, (6,), top_k=7)
    found = factored(scores, cells, outputs, score_threshold=0.5)
    centred = outputs.own["centerness"][0].flatten(1).sigmoid()
    for image in range(2):
        for k, (cell, label) in enumerate(zip(cells[image].tolist(), labels[image].tolist(), strict=True)):
            score = logits[image, cell, label].sigmoid().item() * bool(valid[image, cell])
            expected = score * centred[image, cell].item() if score > 0.5 else 0.0
            assert found[image, k].item() == pytest.approx(expected)
    assert (found > 0).any() and (found == 0).any()


def test_cells_are_counted_over_the_levels_of_their_own_image() -> None:
    first, second = torch.arange(24.0).view(2, 2, 2, 3), 100 + torch.arange(4.0).view(2, 2, 1, 1)
    found = at_cells([first, second], torch.tensor([[0, 6], [5, 4]]))
    assert found.tolist() == [[[0, 6], [100, 101]], [[17, 23], [16, 22]]]
