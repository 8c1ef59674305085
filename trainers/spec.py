"""What to train: frozen values that say everything about a training but not where it runs.

A `Stage` contains the stage that teaches it, so its hash is the address of its result. Two rules keep that true:
whatever changes the weights is in here, and whatever does not (machines, folders, worker counts) is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from trainers.augment import Crop, Resizing, misfit
from trainers.call import Call, Count, Fraction, Index, NonNegative, Positive, Spec, Term, canonical

# Raised by hand when the meaning of training changes, so that no older result passes for a newer one.
SEMANTICS = 4

LATER = (
    "on_nonfinite",
    "bias_lr",
    "bias_decay",
)  # knobs of a recipe that are not written where they have their defaults


# Which part of a model weights are: all of it, all but what has rows for classes, or the backbone.
Part = Literal["detector", "without_classes", "backbone"]


class Weights(Spec):
    """Published weights by their content: the SHA-256 of their file, and which part of a model they are."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    part: Part = "detector"


class Model(Spec):
    """A detector on a backbone, and the published weights that it starts from."""

    detector: Call
    backbone: Call
    weights: Weights | None = None


class Data(Spec):
    """A data set by its content: the same annotations and image list are the same data, wherever they lie."""

    fingerprint: str
    classes: tuple[str, ...]
    masks: str = ""  # SHA-256 of the training objects' masks, for a model that learns them; of no meaning to others


class Guides(Spec):
    """Who teaches: the teacher alone, or with it all that taught the teacher, as densely guided distillation has it.

    Son et al., "Densely Guided Knowledge Distillation using Multiple Teacher Assistants", ICCV 2021,
    https://arxiv.org/abs/2009.08825. Every loss then listens to each guide. The paper's stochastic variant, for the
    last student only, keeps an assistant's guidance with a chance of `keep`; the released code instead drops `drop`
    guides at random, the root teacher not excepted, and lets the task's losses count once whatever their number.
    """

    who: Literal["teacher", "all"] = "teacher"
    keep: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # how often each assistant is heard, step by step; the root always is
    )
    drop: Index = 0  # how many guides of a step are not heard; one always is
    balance: bool = True  # the detection losses count once for each guide, heard or not: n + 1 with n assistants


class Best(Spec):
    """The best epoch by a figure of the metric, such as AP: what `best` means in a study whose score that is."""

    best: str


class Skip(Spec):
    """How many steps of a training may be left out because a loss or the gradient is no number."""

    skip: Count


def _on_nonfinite(written: Any) -> Any:
    """`fail`, or a `Skip`. The words are ours, since pydantic would speak of each of both."""
    number = written.get("skip") if isinstance(written, dict) and set(written) == {"skip"} else None
    if written == "fail" or isinstance(written, Skip) or (type(number) is int and number > 0):
        return written
    raise ValueError("write fail, or {skip: 3} for at most 3 steps of a training that may be left out")


def _select(written: Any) -> Any:
    """`last`, `best`, or a `Best`. The words are ours, since pydantic would speak of each of them."""
    if written in ("last", "best") or isinstance(written, Best):
        return written
    if isinstance(written, dict) and set(written) == {"best"} and isinstance(written["best"], str):
        return Best(best=written["best"])
    raise ValueError("write last or best")


class Recipe(Spec):
    """How weights come about. `epochs` counts passes over the training set, `batch` images over all workers."""

    epochs: Count = 12
    batch: Count = 16
    optimizer: Call = Call(name="SGD")
    lr: Positive = 0.01
    schedule: Call = Call(name="Step")
    warmup: Index = 500  # optimizer steps over which the rate rises linearly
    warmup_from: Fraction = 0.001  # the part of the rate at which it starts to rise
    bias_lr: Positive = 1.0  # what the rate of biases, but of those of norms, is multiplied by
    bias_decay: NonNegative = 1.0  # what their weight decay is multiplied by
    clip: Positive | None = None  # largest norm of the gradient
    ema: Annotated[NonNegative, Field(lt=1)] = 0.0  # decay of the averaged weights; 0: none
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # on a CPU always fp32
    freeze: Index = 0  # the stem and this many stages less one of the backbone keep their weights; 0: none
    fixed_norm: bool = False  # batch norm keeps its running statistics; gamma and beta still learn
    resize: Resizing | None = None  # short side, and the most that the long side may have; pixels
    crop: Crop | None = None  # of training images: a random window, before it is resized
    group: bool = False  # batches are of landscapes alone, or of the other images alone
    flip: Fraction = 0.5  # how often an image is mirrored
    ignore: bool = True  # what lies on crowds and others to be ignored is no background; false: it is
    # Which epoch's weights are kept: the last one's, or those of the best, for which every epoch is measured.
    select: Annotated[Literal["last", "best"] | Best, BeforeValidator(_select)] = "last"
    # Once a loss or the gradient is no number: the training fails, or the step is left out.
    on_nonfinite: Annotated[Literal["fail"] | Skip, BeforeValidator(_on_nonfinite)] = "fail"
    guides: Annotated[Guides, BeforeValidator(lambda x: {"who": x} if isinstance(x, str) else x)] = Guides()

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As it was written before some knobs were there, where they are as if they were not: keys of then stay."""
        written: dict[str, Any] = write(self)
        for knob in LATER:
            if getattr(self, knob) == type(self).model_fields[knob].default:
                written.pop(knob, None)
        return written

    @property
    def tolerated(self) -> int:
        """Steps that may be left out."""
        return self.on_nonfinite.skip if isinstance(self.on_nonfinite, Skip) else 0

    def measuring(self) -> Recipe:
        """The same, but for what makes no difference where nothing is trained."""
        return Recipe(batch=self.batch, precision=self.precision, resize=self.resize and self.resize.largest)

    def selecting(self, score: str) -> Recipe:
        """The same, and if the best epoch is kept, by this figure: another is another training."""
        return self.model_copy(update={"select": Best(best=score)}) if self.select == "best" and score else self


class Stage(Spec):
    """One training of one model by one teacher stage, or by nobody."""

    model: Model
    data: Data
    recipe: Recipe
    distill: tuple[Term, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # what torch can take
    teacher: Stage | None = None

    @model_validator(mode="after")
    def _teacher_and_losses_go_together(self) -> Stage:
        if self.distill and self.teacher is None:
            raise ValueError("a stage without a teacher has no distillation losses")
        return self

    @model_validator(mode="after")
    def _what_is_cut_is_resized(self) -> Stage:
        if wrong := misfit(self.recipe.resize, self.recipe.crop):
            raise ValueError(f"crop: {wrong}")
        return self

    @cached_property
    def key(self) -> str:
        """16 hex digits: the address of this stage's result. It covers the teacher by the teacher's own key."""
        # The parts one by one: thousands of stages share a recipe, a model and the data.
        own = {"data": self.data, "model": self.model, "recipe": self.recipe}
        parts = {name: part.canonical for name, part in own.items()}
        parts |= {"distill": f"[{','.join(term.canonical for term in self.distill)}]", "seed": str(self.seed)}
        return address(parts, teacher=self.teacher.key if self.teacher else None, semantics=SEMANTICS)

    @property
    def published(self) -> bool:
        """Whether all its weights are given and nobody teaches it: then it is measured, and not trained."""
        return self.model.weights is not None and self.model.weights.part == "detector" and self.teacher is None

    @property
    def shared(self) -> int:
        """The images that its workers share, each as many; 1 where one worker only measures."""
        return 1 if self.published else self.recipe.batch

    @property
    def guides(self) -> list[Stage]:
        """The stages that teach this one, its own teacher first."""
        if self.teacher is None:
            return []
        return list(self.teacher.lineage)[::-1] if self.recipe.guides.who == "all" else [self.teacher]

    @property
    def lineage(self) -> Iterator[Stage]:
        """The stages from the root teacher to this one."""
        if self.teacher is not None:
            yield from self.teacher.lineage
        yield self


def address(own: Mapping[str, str], *, teacher: str | None, semantics: int) -> str:
    """The key of a stage from its own fields, each as canonical JSON, and its teacher's key."""
    whole = {**own, "semantics": str(semantics), "teacher": _quoted(teacher)}
    text = ",".join([f"{_quoted(name)}:{whole[name]}" for name in sorted(whole)])
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()[:16]


_quoted = lru_cache(maxsize=1024)(canonical)  # the same few names, thousands of times
