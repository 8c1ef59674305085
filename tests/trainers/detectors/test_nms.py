"""Which pairs and boxes are kept."""

import torch
from torch import Tensor

from trainers.detectors.nms import best_pairs, keep_best
from trainers.outputs import Detections


def keep(
    boxes: list[list[float]],
    scores: list[float],
    labels: list[int],
    *,
    size: tuple[int, int] = (100, 100),
    score_threshold: float = 0.05,
    max_detections: int = 100,
) -> Detections:
    (found,) = keep_best(
        torch.tensor([boxes]),
        torch.tensor([scores]),
        torch.tensor([labels]),
        [size],
        score_threshold=score_threshold,
        nms_iou=0.6,
        max_detections=max_detections,
    )
    return found


def logits(*values: float) -> Tensor:
    """Of one image with six cells and two classes."""
    return torch.tensor(values, dtype=torch.float32).view(1, 6, 2)


EVERYWHERE = torch.ones(1, 6, dtype=torch.bool)


def test_each_level_keeps_its_own_best_pairs() -> None:
    rows = logits(0, 9, 1, 2, 8, 3, 7, 0, -1, -2, -3, -4)  # two levels: 4 cells and 2
    scores, cells, labels = best_pairs(rows, EVERYWHERE, (4, 2), top_k=3)
    found = set(zip(scores.logit().round().int()[0].tolist(), cells[0].tolist(), labels[0].tolist(), strict=True))
    assert found == {(9, 0, 1), (8, 2, 0), (7, 3, 0), (-1, 4, 0), (-2, 4, 1), (-3, 5, 0)}


def test_a_level_with_fewer_pairs_gives_all_of_them() -> None:
    scores, cells, _ = best_pairs(logits(*range(12)), EVERYWHERE, (4, 2), top_k=7)
    assert scores.shape == (1, 7 + 4)
    assert sorted(cells[0, 7:].tolist()) == [4, 4, 5, 5]


def test_the_padding_scores_nothing() -> None:
    valid = torch.tensor([[True, False, True, True, True, True]])
    scores, cells, _ = best_pairs(logits(*[5.0] * 12), valid, (4, 2), top_k=100)
    assert set(scores[cells == 1].tolist()) == {0.0}
    assert (scores[cells != 1] > 0.9).all()


def test_overlapping_boxes_of_one_class_leave_the_best_and_of_two_classes_both() -> None:
    box = [10.0, 10, 30, 30]
    found = keep([box, [11.0, 10, 30, 30], box], [0.5, 0.9, 0.4], [0, 0, 1])
    assert found.labels.tolist() == [0, 1]
    assert found.boxes.tolist() == [[11, 10, 30, 30], box]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.4]))


def test_low_scores_go_and_the_best_come_first() -> None:
    boxes = [[i * 10.0, 0, i * 10 + 8, 8] for i in range(5)]
    found = keep(boxes, [0.2, 0.05, 0.7, 0.01, 0.4], [0, 1, 2, 0, 1])
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.4, 0.2]))
    assert found.labels.tolist() == [2, 1, 0]
    assert len(keep(boxes, [0.2, 0.05, 0.7, 0.01, 0.4], [0, 1, 2, 0, 1], max_detections=2).scores) == 2


def test_boxes_are_clipped_to_the_image_with_width_and_height_not_mixed_up() -> None:
    found = keep([[-5.0, -6, 300, 300]], [0.9], [0], size=(40, 70))
    assert found.boxes.tolist() == [[0, 0, 70, 40]]


def test_nothing_found_is_an_empty_result() -> None:
    found = keep([[0.0, 0, 9, 9]], [0.01], [0])
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)
