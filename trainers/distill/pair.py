"""Whether a student and a teacher fit together."""

from __future__ import annotations

from trainers.spec import Invalid


def agree(quantity: str, student: object, teacher: object) -> None:
    """Raise `Invalid`, with both figures, unless student and teacher have the same."""
    if student != teacher:
        raise Invalid(
            f"student and teacher must have the same {quantity}, but the student's is {student} "
            f"and the teacher's is {teacher}: give both the same, or choose another loss"
        )
