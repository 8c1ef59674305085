"""`tapath init`: what somebody wants to begin with -> a study with comments, checked as `tapath plan` checks it."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as File
from typing import Any

from orchestrator import schema
from orchestrator.found_data import FoundData, look
from orchestrator.ladder import LADDER, SMALL, TRAINED, between, rung
from orchestrator.plan import plan
from orchestrator.proposed import SLOW, USUAL, Wanted, gpus, recipe, rest
from orchestrator.study import load
from orchestrator.yamlfile import flow
from trainers import build, detectors
from trainers import data as datasets
from trainers.atomic import create
from trainers.atomic import write as write_over
from trainers.build import Size
from trainers.call import Call, Invalid, alternatives, offers

Ask = Callable[..., Any]  # click's prompt

COCO_ROOT = "data/coco"
ANEW = {"freeze": 0, "fixed_norm": False}
SWIN = {"optimizer": {"AdamW": {"weight_decay": 0.05}}, "lr": 0.0001}  # as mmdetection trains it, 16 images a batch
DIGITS = FoundData({"Digits": {"classes": 6, "train": 1200, "val": 200}}, 6, (64, 64), ["drawn digits, nothing to get"])
TO_ASK = {
    "data": "The folder of the data (empty: drawn digits, to try it)",
    "detector": "Detector",
    "teacher": "Teacher's backbone",
    "student": "Student's backbone",
    "teacher_weights": "Teacher's weights: a path, a URL, `published`, or `none`",
    "gpus": "GPUs",
}


def write(file: File, answers: Mapping[str, Any], *, ask: Ask | None, force: bool) -> list[str]:
    """Write a study and its schema; -> what is said of it. `ask`: whoever answers what `answers` leave open.

    Raises `Invalid`, also for a file that is there, unless `force`.
    """
    if file.exists() and not force:
        raise Invalid(f"{file} is there already and is not written over; name another file, or add --force")
    wanted = settled(answers, ask)
    made = text(file.stem, wanted)
    with tempfile.TemporaryDirectory() as folder:
        draft = File(folder) / file.name
        draft.write_text(made)
        plan(load(draft), data=False)
    described = file.with_name(schema.FILE)
    file.parent.mkdir(parents=True, exist_ok=True)
    if force:
        write_over(file, lambda aside: aside.write_text(made))
    elif not create(file, made):
        raise Invalid(f"{file} was written by somebody else just now; name another file, or add --force")
    if force or not described.exists():
        write_over(described, lambda aside: aside.write_text(schema.text()))
    following = f"next: tapath plan {shlex.quote(str(file))}"
    warned = [f"warning: {SLOW}"] if wanted.slow else []
    return [*(f"found {line}" for line in wanted.data.said), f"wrote {file}", *warned, following]


def settled(answers: Mapping[str, Any], ask: Ask | None) -> Wanted:
    """What was said, or is said now, and for the rest what usually does. Raises `Invalid`."""

    def say(name: str, default: Any, **how: Any) -> Any:
        given = answers.get(name)
        if given is not None or ask is None:
            return default if given is None else given
        return ask(TO_ASK[name], default=default, **how)

    folder = say("data", "", show_default=False)
    tried = not str(folder)
    small = tried and not any(answers.get(name) for name in ("teacher", "student"))
    teacher = say("teacher", "tiny24" if small else "r101")
    student = say("student", "tiny5" if teacher.startswith(SMALL) else "r18")
    for name, option in ((teacher, "--teacher"), (student, "--student")):
        rung(name, option)
    detector = say("detector", "GFL")
    if detector not in offers(detectors):
        raise Invalid(alternatives(detector, offers(detectors)), ("--detector",))
    weights = _untrained(teacher, answers) if teacher.startswith(SMALL) else say("teacher_weights", "published")
    data, number = _data(folder, student), say("gpus", gpus(), type=int)
    steps = 0 if student.startswith(SMALL) else _steps(data)
    return Wanted(data, detector, teacher, student, weights, number, steps)


def _untrained(teacher: str, answers: Mapping[str, Any]) -> str:
    """What a teacher starts from that is trained within the study. Raises `Invalid` where something else was said."""
    if (given := answers.get("teacher_weights")) in (None, "none"):
        return "none"
    raise Invalid(
        f"{given}: {teacher} is for drawn digits and other small images, and is trained in the study. Leave it out, or "
        "name with --teacher the backbone that these weights are of, such as r101",
        ("--teacher-weights",),
    )


def _data(folder: Any, student: str) -> FoundData:
    if str(folder):
        return look(File(folder))
    if student.startswith(SMALL):
        return DIGITS
    said = [f"no data: COCO 2017 is expected in {COCO_ROOT}"]
    return FoundData({"COCO": {"root": COCO_ROOT}}, 80, (480, 640), said, is_coco=True)


def _steps(data: FoundData) -> int:
    """Of an epoch of the usual recipe; 0 where the data are not here yet, or cannot be read: `tapath plan` says why."""
    try:
        call = Call.model_validate(data.written).complete(datasets)
        return build.steps(build.dataset(call), USUAL.batch, group=USUAL.group)
    except (Invalid, OSError):
        return 0


def text(name: str, wanted: Wanted) -> str:
    """The study."""
    image = wanted.resize or wanted.data.image
    sizes = between(wanted.teacher, wanted.student, wanted.head, image, wanted.data.classes)
    return "\n".join(
        [
            f"{schema.LINE}{schema.FILE}",
            f"# Which way from {wanted.teacher} to {wanted.student} is the best? Written by `tapath init`; change what "
            "you like.",
            "# `tapath plan` says what it will train and cost, `tapath run` trains it.",
            f"name: {_name(name)}",
            *_data_lines(wanted),
            *_models(wanted, sizes),
            *recipe(wanted),
            *rest(wanted),
            "",
        ]
    )


def _name(stem: str) -> str:
    """A file's name as a study's."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in stem).lstrip("-")
    return flow(kept[:100] or "study")


def _data_lines(wanted: Wanted) -> list[str]:
    return [*(f"# {line}" for line in wanted.data.said), f"data: {flow(wanted.data.written)}"]


def _models(wanted: Wanted, sizes: Mapping[str, Size]) -> list[str]:
    lines = ["models: # strongest first: the first teaches, the last is the student"]
    names = list(sizes)
    for i, (name, size) in enumerate(sizes.items()):
        known = f"{size.parameters / 1e6:.3g} M parameters, {size.flops / 1e9:.3g} GFLOPs an image"
        lines.append(f"  # {_role(names, i)}: {known}")
        lines += [f"  {name}:", f"    detector: {flow(wanted.head)}"]
        lines += [f"    backbone: {flow(LADDER[name].written)}", *_weights(wanted, name, teaches=i == 0)]
    if len(names) == 2:
        lines.insert(1, f"  # no backbone is known here that lies between {names[0]} and {names[1]}")
    return lines


def _role(names: Sequence[str], i: int) -> str:
    if i == 0:
        return "the teacher"
    if i == len(names) - 1:
        return "the student"
    return f"an assistant, as its size lies between {names[i - 1]}'s and {names[i + 1]}'s; without it, half the paths"


def _weights(wanted: Wanted, name: str, *, teaches: bool) -> list[str]:
    """Where a model's training starts, or for the teacher what makes one unnecessary."""
    if teaches and wanted.weights not in ("published", "none"):
        file = {"file": wanted.weights, "part": "detector"}
        return ["    # it is measured, and not trained; write part: backbone if it is only that", _where(file)]
    trained = TRAINED.get((wanted.detector, name))
    if teaches and wanted.weights == "published" and trained:
        whose, part = "    # mmdetection's, trained on COCO", "detector" if wanted.data.is_coco else "without_classes"
        does = "it is measured, and not trained" if wanted.data.is_coco else "it is trained on, with these classes"
        return [f"{whose}: {does}", _where(_part(trained, part))]
    if wanted.weights == "none" and teaches:
        return _recipe(wanted, name, anew=True)
    if weights := LADDER[name].weights:
        return ["    # the backbone as ImageNet taught it", _where(_part(weights, "backbone")), *_recipe(wanted, name)]
    return _recipe(wanted, name, anew=True)


def _recipe(wanted: Wanted, name: str, *, anew: bool = False) -> list[str]:
    """In what a model that is trained differs from the recipe of all; `anew`: it starts from nothing."""
    if wanted.small:
        return []
    swin = LADDER[name].family == "Swin"
    why = ["    # it starts from nothing, so all of it learns"] * anew + ["    # a transformer's usual rate"] * swin
    return [*why, f"    recipe: {flow((ANEW if anew else {}) | (SWIN if swin else {}))}"] if why else []


def _part(file: str, part: str) -> dict[str, str]:
    return {"file": file, "part": part}


def _where(weights: Mapping[str, str]) -> str:
    return f"    weights: {{file: {json.dumps(weights['file'], ensure_ascii=False)}, part: {weights['part']}}}"
