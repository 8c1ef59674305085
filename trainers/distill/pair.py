"""Whether a student and a teacher fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainers.call import Invalid
from trainers.outputs import Detector


def dense(student: Detector, teacher: Detector, loss: str, *, instead: str = "") -> None:
    """Raise `Invalid` unless both say at each cell which class they see, in as many predictions a cell.

    `instead`: which other detectors this loss could take.
    """
    for role, detector in (("student", student), ("teacher", teacher)):
        if detector.anchors == 0:
            raise Invalid(
                f"{loss} compares class logits cell by cell, and the {role} has none: use one-stage detectors, such "
                f"as GFL, {f'{instead}, ' if instead else ''}or a loss that reads features, such as PKD"
            )
    agree("number of predictions a cell", student.anchors, teacher.anchors)


def can_be_valuable(student: Detector, vlr_weight: float) -> None:
    """Raise `Invalid` if the valuable region weighs something and the student's detector does not know it."""
    if vlr_weight and not hasattr(student, "valuable"):
        raise Invalid(
            f"{type(student).__name__}, the student, has no valuable localization region: leave it out with "
            "vlr_weight 0, or use one of GFL, GFLv2, ATSS, RetinaNet and FCOS",
            ("vlr_weight",),
        )


def some_part(weights: Iterable[float], loss: str) -> None:
    """Raise `Invalid` if each part of a loss weighs nothing, once it has decided about those that a study left open."""
    if not any(weights):
        raise Invalid(
            f"every part of {loss} has the weight 0 for this pair: give one of them another, or leave {loss} out"
        )


def agree(quantity: str, student: object, teacher: object) -> None:
    """Raise `Invalid`, with both figures, unless student and teacher have the same."""
    if student != teacher:
        raise Invalid(
            f"student and teacher must have the same {quantity}, but the student's is {student} "
            f"and the teacher's is {teacher}: give both the same, or choose another loss"
        )


def chosen(
    knob: str, wanted: Sequence[int] | None, numbers: Sequence[int], *, default: Sequence[int]
) -> tuple[int, ...]:
    """Which of these numbers of levels or stages a study wants, finest first. Raises `Invalid`, at the knob."""
    if wanted is None:
        return tuple(default)
    if not wanted or not set(wanted) <= set(numbers) or len(set(wanted)) < len(wanted):
        raise Invalid(f"{knob} {list(wanted)}: write one or more of {numbers[0]} to {numbers[-1]}, each once", (knob,))
    return tuple(sorted(wanted))
