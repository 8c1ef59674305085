"""Which refined anchors teach MimicDet: ranks, labels, samples and their sizes, written out."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from trainers.detectors.mimicdet_proposals import choice, hardest, match, propose, ranked, sample
from trainers.outputs import Truth


def boxes_of(count: int, generator: torch.Generator) -> Tensor:
    low = torch.rand(count, 2, generator=generator) * 60
    return torch.cat([low, low + 10 + torch.rand(count, 2, generator=generator) * 30], 1)


def truth_of(*boxes: Tensor) -> Truth:
    labels = [torch.arange(len(b)) % 3 for b in boxes]
    size = [(100, 100)] * len(boxes)
    return Truth(list(boxes), labels, size, list(range(len(boxes))), [(1.0, 1.0)] * len(boxes))


def test_the_best_ranked_are_the_best_that_overlap_no_better_one_by_eight_tenths() -> None:
    generator = torch.Generator().manual_seed(0)
    distinct = boxes_of(30, generator)
    boxes = torch.cat([distinct, distinct + 0.5, distinct + 1])  # twins
    scores = torch.randn(90, generator=generator)
    valid = torch.rand(90, generator=generator) < 0.8
    kept: list[int] = []
    for number in scores.argsort(descending=True).tolist():
        if valid[number] and (not kept or box_iou(boxes[number][None], boxes[kept]).max() <= 0.8):
            kept.append(number)
    assert len(kept) < int(valid.sum()) - 10
    assert ranked(boxes, scores, valid, limit=90).tolist() == kept
    assert ranked(boxes, scores, valid, limit=7).tolist() == kept[:7]


def test_a_refined_anchor_answers_for_the_box_that_it_overlaps_most_from_six_tenths_or_as_its_best() -> None:
    iou = torch.tensor(
        [
            [0.7, 0.6, 0.59, 0.1, 0.0, 0.8],
            [0.2, 0.7, 0.10, 0.3, 0.0, 0.0],  # its best is the second
            [0.1, 0.0, 0.20, 0.5, 0.0, 0.0],  # nothing reaches 0.6: its best is the fourth
            [0.0, 0.0, 0.00, 0.0, 0.0, 0.0],  # overlaps nothing: nobody is its best
        ]
    )
    assert match(iou).tolist() == [0, 1, -1, 2, -1, 0]
    assert match(torch.zeros(0, 3)).tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("positives", "negatives", "count", "found"),
    [
        (50, 500, 128, (32, 96)),
        (10, 500, 128, (10, 118)),
        (50, 5, 128, (32, 5)),
        (0, 9, 128, (0, 9)),
        (2, 9, 1, (1, 0)),
    ],
)
def test_a_quarter_of_the_sample_are_positives_if_there_are_so_many(
    positives: int, negatives: int, count: int, found: tuple[int, int]
) -> None:
    positive = torch.cat([torch.ones(positives), torch.zeros(negatives)]).bool()
    chosen = sample(positive, count=count)
    assert len(set(chosen.tolist())) == len(chosen)
    assert (int(positive[chosen].sum()), int((~positive[chosen]).sum())) == found


def test_choices_differ_and_are_repeated_by_the_seed() -> None:
    def chosen(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return choice(torch.arange(10, 90), 5).tolist()

    assert chosen(0) == chosen(0) != chosen(1)
    assert set(chosen(0)) <= set(range(10, 90))


@pytest.mark.parametrize("count", [1, 3, 8, 100])
def test_the_hardest_are_the_highest_losses_of_each_image_by_itself(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.tensor([0] * 9 + [1] * 2 + [3] * 20)  # the third has none
    loss = torch.rand(len(image), generator=generator) + image  # the last one's are higher than all others
    wanted = set()
    for number in range(4):
        own = [i for i in range(len(image)) if image[i] == number]
        wanted |= set(sorted(own, key=lambda i: -loss[i].item())[:count])
    found = hardest(loss, image, count=count).tolist()
    assert len(found) == len(wanted) == sum(min(count, n) for n in (9, 2, 20))
    assert set(found) == wanted


SIZES: dict[str, Any] = {"background": 3, "limit": 25, "sampled": 12, "mimicked": 5}


def test_mimicked_are_sampled_and_sampled_are_best_ranked_image_by_image() -> None:
    generator = torch.Generator().manual_seed(0)
    cells = 80
    refined = torch.stack([boxes_of(cells, generator) for _ in range(3)])
    scores = torch.randn(3, cells, generator=generator)
    valid = torch.rand(3, cells, generator=generator) < 0.9
    level = torch.arange(cells) // 50
    truth = truth_of(refined[0, :4] + 0.3, torch.zeros(0, 4), refined[2, 60:67] + 0.3)
    found = propose(refined, scores, valid, level, truth, **SIZES)
    assert valid.flatten()[found.row].all()
    assert torch.equal(found.image, found.row // cells)
    assert torch.equal(found.level, level[found.row % cells])
    assert torch.equal(found.refined, refined.flatten(0, 1)[found.row])
    assert found.image.bincount().tolist() == [25, 25, 25]
    assert found.image[found.sampled].bincount().tolist() == [12, 12, 12]
    assert found.image[found.sampled][found.mimicked].bincount().tolist() == [5, 5, 5]
    b_s = set(found.row.tolist())
    b_t = set(found.row[found.sampled].tolist())
    b_m = set(found.row[found.sampled[found.mimicked]].tolist())
    assert (len(b_s), len(b_t), len(b_m)) == (75, 36, 15)
    assert b_m < b_t < b_s


def test_a_proposal_carries_the_class_and_the_box_that_it_answers_for_or_background() -> None:
    generator = torch.Generator().manual_seed(1)
    refined = torch.stack([boxes_of(60, generator) for _ in range(2)])
    truth = truth_of(boxes_of(3, generator), boxes_of(5, generator))
    scores, valid = torch.randn(2, 60, generator=generator), torch.ones(2, 60, dtype=torch.bool)
    found = propose(refined, scores, valid, torch.zeros(60).long(), truth, **{**SIZES, "limit": 60})
    for image in range(2):
        own = found.image == image
        iou = box_iou(truth.boxes[image], found.refined[own])
        for number, (most, box) in enumerate(zip(*iou.max(0), strict=True)):
            answers = most >= 0.6 or any(iou[n, number] == iou[n].max() > 0 for n in range(len(iou)))
            assert found.positive[own][number] == answers
            wanted = truth.labels[image][box] if answers else 3
            assert found.label[own][number] == wanted
            if answers:
                assert torch.equal(found.box[own][number], truth.boxes[image][box])
    assert 0 < int(found.positive.sum()) < len(found.row)
