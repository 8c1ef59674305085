"""`tapath init`: what somebody wants to begin with -> a study with comments, checked as `tapath plan` checks it."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as File
from typing import Any, NamedTuple

from orchestrator import schema
from orchestrator.found_data import FoundData, look
from orchestrator.ladder import LADDER, SMALL, TRAINED, between, rung
from orchestrator.machine import num_gpus
from orchestrator.plan import plan
from orchestrator.study import load
from orchestrator.yamlfile import flow
from trainers import detectors
from trainers.atomic import create
from trainers.atomic import write as write_over
from trainers.build import Size
from trainers.call import Invalid, alternatives, offers

Ask = Callable[..., Any]  # click's prompt

COCO_ROOT = "data/coco"
SMALLEST = 320  # pixels of the short side below which images are not enlarged
BATCH, RATE = 16, 0.01  # images and learning rate of the field's usual recipe
DIGITS = FoundData({"Digits": {"classes": 6, "train": 1200, "val": 200}}, 6, (64, 64), ["drawn digits, nothing to get"])
SMALL_HEAD = {"channels": 16, "convs": 2, "extra": 0, "reg_max": 8}
DISTRIBUTIONS = ("GFL", "GFLv2")  # the detectors that say boxes as LD needs it
TO_ASK = {
    "data": "The folder of the data (empty: drawn digits, to try it)",
    "detector": "Detector",
    "teacher": "Teacher's backbone",
    "student": "Student's backbone",
    "teacher_weights": "Teacher's weights: a path, a URL, `published`, or `none`",
    "gpus": "GPUs",
}


class Wanted(NamedTuple):
    """What a study is to begin with."""

    data: FoundData
    detector: str
    teacher: str
    student: str
    weights: str  # of the teacher: published, none, or where they are
    gpus: int

    @property
    def small(self) -> bool:
        """Whether the models are those for small images."""
        return self.student.startswith(SMALL)

    @property
    def head(self) -> dict[str, Any] | str:
        """The detector as a study writes it."""
        return {self.detector: SMALL_HEAD} if self.small and self.detector == "GFL" else self.detector

    @property
    def resize(self) -> tuple[int, int] | None:
        """The short side, and the longest; None: images stay as they are."""
        if self.small or min(self.data.image) < SMALLEST:
            return None
        return (600, 1000) if "VOC" in self.data.written else (800, 1333)


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
    return [*(f"found {line}" for line in wanted.data.said), f"wrote {file}", following]


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
    return Wanted(_data(folder, student), detector, teacher, student, weights, say("gpus", num_gpus(), type=int))


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
            *_recipe(wanted),
            *_rest(wanted),
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
    if teaches and wanted.weights == "published" and trained and wanted.data.is_coco:
        return [
            "    # mmdetection's, trained on COCO: it is measured, and not trained",
            _where(_part(trained, "detector")),
        ]
    if wanted.weights == "none" and teaches:
        return ["    # it starts from nothing"] if not wanted.small else []
    if weights := LADDER[name].weights:
        own = "    # the backbone as ImageNet taught it" + (
            "; published detectors know other classes, so it is trained here" if teaches and trained else ""
        )
        return [own, _where(_part(weights, "backbone"))]
    return [] if wanted.small else ["    # no published weights are known here: it starts from nothing"]


def _part(file: str, part: str) -> dict[str, str]:
    return {"file": file, "part": part}


def _where(weights: Mapping[str, str]) -> str:
    return f"    weights: {{file: {json.dumps(weights['file'], ensure_ascii=False)}, part: {weights['part']}}}"


def _recipe(wanted: Wanted) -> list[str]:
    if wanted.small:
        return [
            "recipe:",
            "  epochs: 10",
            "  batch: 16",
            "  optimizer: {AdamW: {weight_decay: 0.05}}",
            "  lr: 0.008",
            "  schedule: OneCycle",
            "  warmup: 0",
            *(["  flip: 0 # a mirrored digit is another sign"] if "Digits" in wanted.data.written else []),
        ]
    fresh = wanted.weights == "none" or not LADDER[wanted.student].weights
    return [
        "recipe: # of the field: 12 epochs, the rate falls after 8 and 11 of them",
        "  epochs: 12",
        f"  batch: {BATCH} # images of all workers together; with another number change lr in proportion",
        f"  lr: {RATE}",
        *(
            [f"  resize: {list(wanted.resize)} # short side, and the longest that the long side may be"]
            if wanted.resize
            else ["  # images are small, and stay as they are; resize: [800, 1333] would enlarge them"]
        ),
        "  group: true # batches of images that are wider than high, or of the others: less padding",
        *([] if fresh else ["  freeze: 1", "  fixed_norm: true # batch norms keep what ImageNet taught them"]),
        *(["  precision: bf16"] if wanted.gpus else []),
    ]


def _rest(wanted: Wanted) -> list[str]:
    knobs: dict[str, Any] = {"weight": 0.5} if wanted.small else {}
    if wanted.data.classes == 1:  # a softmax of one class says nothing
        knobs["form"] = "binary"
    if wanted.detector not in DISTRIBUTIONS:
        said, losses = "PKD: the pattern of features, whatever the detector", "{PKD: {weight: 6}}"
    else:
        said = "LD: how sure the teacher is of each edge of a box; KD: of the classes"
        edges = "{LD: {weight: 0.03, vlr_weight: 0, normaliser: per_image}}" if wanted.small else "{LD: {weight: 0.25}}"
        losses = f"{edges}, {flow({'KD': knobs}) if knobs else 'KD'}"
    machine = (
        [
            f"# each stage on one of {wanted.gpus} GPUs; workers: {wanted.gpus} would give each of them all",
            "resources: {gpus: 1, cpus: 4, loader_workers: 4, micro_batch: 4}",
        ]
        if wanted.gpus
        else ["resources: {cpus: 1} # no GPU was named: gpus: 1 for one"]
    )
    return [
        f"# {said}",
        f"distill: [{losses}]",
        "search: exhaustive # every path; best_predecessor trains fewer where there are many",
        "seeds: [0] # [0, 1, 2] to tell a gain from luck, at three times the cost",
        *machine,
    ]
