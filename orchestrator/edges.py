"""Which models are students and which edges lead to them, as a study writes it: checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trainers.call import Invalid, alternatives


def goals(chosen: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The students in the order of the names, if each is one of them, not the root, and there once."""
    for i, name in enumerate(chosen):
        if name not in names:
            raise Invalid(alternatives(name, names), ("students", i))
        if name == names[0]:
            raise Invalid(f"{name} is the teacher of all; a student is a model after it", ("students", i))
        if name in chosen[:i]:
            raise Invalid(f"{name} is there already; remove one", ("students", i))
    return tuple(name for name in names if name in chosen) or names[-1:]


def every_edge(names: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((teacher, name) for i, name in enumerate(names) for teacher in names[:i])


def checked(edges: Iterable[tuple[str, str]], rank: Mapping[str, int]) -> frozenset[tuple[str, str]]:
    """The edges, if each joins two known names, points from the stronger to the weaker and is new."""
    seen: dict[tuple[str, str], int] = {}
    for i, (teacher, student) in enumerate(edges):
        where = ("edges", i)
        for name in (teacher, student):
            if name not in rank:
                raise Invalid(alternatives(name, rank), where)
        if teacher == student:
            raise Invalid(f"{teacher} cannot teach itself; list the model twice, under two names", where)
        if rank[teacher] > rank[student]:
            raise Invalid(
                f"{teacher} cannot teach {student}: models are listed strongest first and an edge is "
                f"[teacher, student], so write [{student}, {teacher}] or list {teacher} before {student}",
                where,
            )
        if (teacher, student) in seen:
            first = seen[teacher, student]
            raise Invalid(f"[{teacher}, {student}] is there already, as edge {first}; remove one", where)
        seen[teacher, student] = i
    return frozenset(seen)
