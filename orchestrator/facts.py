"""What MLflow is told about a stage, as flat text: parameters, tags and names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.board import Row
from orchestrator.masking import public
from orchestrator.settings import text
from trainers.call import Call, Spec, canonical
from trainers.spec import SEMANTICS, Stage


def parameters(stage: Stage) -> dict[str, str]:
    """Everything that a stage says, dotted, such as `recipe.lr` or `distill.LD.temperature`.

    A call is one entry with its name and one for each argument. The teacher is there by its key alone: its
    own run has its parameters.
    """
    found: dict[str, Any] = {}
    for name in ("model", "data", "recipe", "seed"):
        found.update(_flat(name, getattr(stage, name)))
    if stage.distill:
        names = [call.name for call in stage.distill]
        found["distill"] = " + ".join(names)
        for i, call in enumerate(stage.distill):
            prefix = f"distill.{i}" if len(set(names)) < len(names) else "distill"
            found.update({f"{prefix}.{key}": value for key, value in _arguments(call)})
    if stage.teacher is not None:
        found["teacher"] = stage.teacher.key
    return {name: public(value) for name, value in found.items()}


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Call):
        yield name, value.name
        yield from ((f"{name}.{key}", argument) for key, argument in _arguments(value))
    elif isinstance(value, Spec):
        for key in type(value).model_fields:
            yield from _flat(f"{name}.{key}", getattr(value, key))
    else:
        yield name, _text(value)


def _arguments(call: Call) -> Iterator[tuple[str, str]]:
    for key, value in call.args.items():
        yield f"{call.name}.{key}", _text(value)
    for key, value in call.model_dump(mode="json").items():
        if key != call.name:  # when a loss counts
            yield f"{call.name}.{key}", _text(value)


def _text(value: Any) -> str:
    """Text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tags(row: Row) -> dict[str, str]:
    """What a stage is searched by, in its run and on its checkpoint."""
    teacher = row.stage.teacher
    return {
        "key": row.key,
        "setting": setting(row.stage),
        "teacher_key": teacher.key if teacher else "",
        "path": str(row.path),
        "path_length": str(len(row.path.models)),
        "role": row.role,
        "seed": str(row.seed),
        "sweep": public(text(row.path.setting)),  # the setting of its edge, for people
        "model": row.path.models[-1],
        "device": row.device,  # empty until it is done
        "reused": str(row.state == "reused").lower(),
        **({"warm_start": public(row.warm)} if row.warm else {}),
        **choice(row),
    }


def differing(tags: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Those that MLflow has not got like that; one that is not there counts as empty."""
    return {name: value for name, value in tags.items() if value != there.get(name, "")}


def outcome(row: Row) -> dict[str, str]:
    """The tags that change while a stage is trained."""
    reason, weights = public(row.reason), public(row.weights)
    return {"state": row.state, "reason": reason, "weights": weights, "device": row.device} | choice(row)


def choice(row: Row) -> dict[str, str]:
    """The tag that says that the score is of a selected epoch, and of which, if it is."""
    return {"selected": row.choice} if row.choice else {}


def setting(stage: Stage) -> str:
    """16 hex digits, equal for stages that differ in nothing but their seeds and those of their teachers."""
    own = stage.model_dump(mode="json", exclude={"teacher", "seed"})
    own["semantics"] = SEMANTICS
    own["teacher"] = setting(stage.teacher) if stage.teacher else None
    return hashlib.sha256(canonical(own).encode()).hexdigest()[:16]


def run_name(row: Row) -> str:
    """`student-r18-0a1b2c3d`."""
    return f"{row.role}-{row.path.models[-1]}-{row.key[:8]}"


def epochs(row: Row, first: int, last: int) -> list[dict[str, float]]:
    """The metrics of these epochs, counted from 1, both included; the row's newest also has its score."""
    return [_epoch(row, number) for number in range(first, last + 1)]


def final(row: Row) -> dict[str, float]:
    """The metrics of the checkpoint: those of the last epoch, if there was one, with score, seconds and other costs.

    Where another epoch was selected it is said which, and what was measured is of that one. What was measured on the
    test images is there and nowhere else.
    """
    own = {
        metric(name): value
        for name, value in row.metrics.items()
        if name.startswith("test/") or row.selected is not None
    }
    chosen = {} if row.selected is None else {"selected": float(row.selected)}
    return {**_epoch(row, len(row.history)), "seconds": row.seconds, **own, **chosen, **row.usage}


def _epoch(row: Row, number: int) -> dict[str, float]:
    entry = dict(row.history[number - 1] if number else row.metrics)
    if number == len(row.history):
        entry.setdefault("seconds", row.seconds)
        if row.score is not None:
            entry["score"] = row.score
    return {**{metric(name): float(value) for name, value in entry.items()}, "epoch": float(number)}


def metric(name: str) -> str:
    """A name with only what MLflow allows in one."""
    return re.sub(r"[^/\w.\- ]", "_", name)


def entity(name: str) -> str:
    """A name that MLflow takes for a model."""
    return re.sub(r"[/:.%\"']", "-", name)


def parts(epochs: Sequence[dict[str, float]], size: int) -> Iterator[list[dict[str, float]]]:
    """Consecutive epochs that have at most `size` metrics together, or a single epoch that has more."""
    part: list[dict[str, float]] = []
    for entry in epochs:
        if part and sum(map(len, part)) + len(entry) > size:
            yield part
            part = []
        part.append(entry)
    if part:
        yield part
