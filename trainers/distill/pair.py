"""Whether a student and a teacher fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trainers.call import Invalid
from trainers.outputs import Detector, Outputs, Overlap, Region, Targets

EVERY = 100  # more levels than any pyramid has


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
    kinds = type(student).__name__, type(teacher).__name__
    agree(
        "number of predictions a cell",
        student.anchors,
        teacher.anchors,
        instead=f"{kinds[0]} and {kinds[1]} differ in that: take one of them on both sides, or a loss that reads "
        "features alone, such as PKD",
    )


def same_strides(student: Detector, teacher: Detector) -> None:
    """Raise `Invalid` unless the cells of all levels are of one size on both sides."""
    mine, its = tuple(student.strides), tuple(teacher.strides)
    some = " CWD and FGD compare the levels that both have, and" if mine[0] == its[0] else ""
    agree(
        "strides",
        mine,
        its,
        instead=f"they follow from the backbone and the detector's extra, so give both the same;{some} PKD takes any",
    )


def same_anchors(student: Detector, teacher: Detector) -> None:
    """Raise `Invalid` if the anchors of both, of which a cell has several, lie by other conventions."""
    if student.anchors > 1 and hasattr(student, "conventions") and hasattr(teacher, "conventions"):
        agree(
            "conventions",
            student.conventions,
            teacher.conventions,
            instead="anchors lie elsewhere by others; give both the same, or take a loss that reads features alone, "
            "such as PKD",
        )


def can_be_valuable(student: Detector, vlr_weight: float) -> None:
    """Raise `Invalid` if the valuable region weighs something and the student's detector does not know it."""
    if vlr_weight and not hasattr(student, "valuable"):
        raise Invalid(
            f"{type(student).__name__}, the student, has no valuable localization region: leave it out with "
            "vlr_weight 0, or use one of GFL, GFLv2, ATSS, RetinaNet and FCOS",
            ("vlr_weight",),
        )


def valuable(student: Outputs, targets: Targets, *, gamma: float, overlap: Overlap) -> Region:
    """The valuable region of a batch, looked for once: whoever asks again, or knew it beforehand, finds it there."""
    name = f"valuable by {overlap} from {gamma}"
    if name not in targets.own:
        targets.own[name] = student.by.valuable(student, targets, gamma=gamma, overlap=overlap)
    found: Region = targets.own[name]
    return found


def some_part(weights: Iterable[float], loss: str) -> None:
    """Raise `Invalid` if each part of a loss weighs nothing, once it has decided about those that a study left open."""
    if not any(weights):
        raise Invalid(
            f"every part of {loss} has the weight 0 for this pair: give one of them another, or leave {loss} out"
        )


def agree(
    quantity: str, student: object, teacher: object, *, instead: str = "give both the same, or choose another loss"
) -> None:
    """Raise `Invalid`, with both figures and what to write `instead`, unless student and teacher have the same."""
    if student != teacher:
        raise Invalid(
            f"student and teacher must have the same {quantity}, but the student's is {student} "
            f"and the teacher's is {teacher}: {instead}"
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


def shared_levels(
    student: Detector, teacher: Detector, wanted: tuple[int, ...] | None, *, default: int
) -> tuple[int, ...]:
    """The numbers of the levels to compare, 0 the finest: those wanted, or the first `default` that both have.

    Raises `Invalid` for a level that one has not, that is named twice, or whose cells differ in size.
    """
    both = min(len(student.strides), len(teacher.strides))
    levels = chosen("levels", wanted, range(both), default=range(min(default, both)))
    agree(
        "strides of the levels that are compared",
        tuple(student.strides[level] for level in levels),
        tuple(teacher.strides[level] for level in levels),
        instead="they follow from the backbone and the detector's extra, and levels are paired by number; give both "
        "the same, or take PKD, which takes any",
    )
    return levels
