"""From a stage to the objects that train: data set, student, teacher's shape and losses; and a dry build of all that.

The dry build happens on torch's meta device, which has shapes but no numbers: it finds what does not fit before
anything is trained, at any size, in milliseconds.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainers import backbones, data, detectors, distill, metrics, optim, teaching, weights
from trainers.augment import lengths
from trainers.call import Call, Invalid, Term, canonical, offers
from trainers.chance import drawing
from trainers.data import sampling
from trainers.data.split import COCO_AP
from trainers.data.unread import Unread
from trainers.export import training_only
from trainers.outputs import Network
from trainers.spec import Data, Model, Recipe, Stage


def dataset(call: Call) -> Any:
    """The data set that a call names. Data sets see to it themselves that one process reads them once."""
    return call.of(data)


def unread(call: Call) -> Unread:
    """What stands for the data set that a call names, which must be complete, without reading any file."""
    kind = offers(data)[call.name]
    judge = Call.model_validate(call.args["metric"])
    return Unread(kind.names(**call.args), judge, kind.unseen(**call.args))


def metric(found: Any) -> Any:
    """What judges detections in a data set; its `score` names the figure to maximise. Raises `Invalid`."""
    try:
        return found.metric.of(metrics)
    except Invalid as error:
        raise error.under("metric", found.metric.name) from None


def score_name(found: Any) -> str:
    """The figure to maximise. Raises `Invalid` when the validation images, or those of a test, have no object of which
    it could be said."""
    judge = metric(found)
    for part, split in (("validation", found.val), ("test", found.test)):
        known = (judge.score,) if split is None else judge.figures(split)
        if judge.score in known:
            continue
        message = f"the {part} images have nothing that {judge.score} could be measured on; there is"
        raise Invalid(f"{message} {', '.join(known) or 'nothing at all'}", ("metric", found.metric.name))
    name: str = judge.score
    return name


def contents(call: Call) -> Data:
    """What identifies a data set, wherever it lies."""
    found = dataset(call)
    return Data(fingerprint=identity(found), classes=found.classes)


def masks(found: Any) -> str:
    """SHA-256 of the masks to learn from; empty if not every object has one. Raises `Invalid` for broken ones."""
    digest: str = found.train.masks_digest
    return digest


def learns_masks(call: Call) -> bool:
    """Whether the detector that a call names learns from masks."""
    return getattr(offers(detectors)[call.name], "needs_masks", False)


def identity(found: Any) -> str:
    """SHA-256 in hex of a data set and of how detections in it are judged, by whichever of the figures they are ranked.

    Judged by COCO's AP it is the data's own.
    """
    call = found.metric.complete(metrics)
    knobs = {name: value for name, value in call.args.items() if name != "score"}
    if call.name == COCO_AP.name and not knobs:
        return str(found.fingerprint)
    judged = {"data": found.fingerprint, "metric": {call.name: knobs}}
    return hashlib.sha256(canonical(judged).encode()).hexdigest()


def network(model: Model, num_classes: int) -> Network:
    """A detector with fresh weights."""
    return model.detector.of(detectors, model.backbone.of(backbones), num_classes)


def detector(stage: Stage, published: Path | None = None) -> Network:
    """The model that a stage trains, frozen where its recipe says so; with fresh weights, or those of a file."""
    built = network(stage.model, len(stage.data.classes))
    given = stage.model.weights
    if published is not None and given is not None:
        weights.load(published, built, part=given.part, classes=stage.data.classes)
    built.backbone.freeze(stage.recipe.freeze)
    if stage.recipe.fixed_norm:
        built.backbone.fix_norm()
    if getattr(built, "separate", False) and (given is None or given.part == "backbone"):
        built.renew_teacher()  # its copy of the backbone is to have what was loaded and frozen just now
    return built


def trained(stage: Stage, learnt: dict[str, Tensor], *, device: torch.device) -> Network:
    """The model of a stage with the weights that it has learnt, in evaluation mode and without gradients."""
    built = network(stage.model, len(stage.data.classes))
    built.load_state_dict(learnt)
    return built.to(device).eval().requires_grad_(False)


class Losses(NamedTuple):
    """The distillation losses of a stage by the names under which they are logged."""

    modules: dict[str, nn.Module]
    terms: dict[str, Term]  # when each counts
    guides: dict[str, int]  # whom each listens to: 0 is the teacher, 1 the teacher's teacher
    heads: set[int]  # the guides of whom some loss reads more than features


def losses(terms: tuple[Term, ...], student: nn.Module, guides: Sequence[nn.Module]) -> Losses:
    """Every loss for every guide: ld, or ld_1 and ld_2 when there are two; of the teacher's teacher ld_of_guide_2.

    A loss whose weights are all 0 is left out: it would only cost time.
    """
    times = Counter(term.name for term in terms)
    seen: Counter[str] = Counter()
    built = Losses({}, {}, {}, set())
    for term in terms:
        seen[term.name] += 1
        if silent(term):
            continue
        for number, guide in enumerate(guides):
            name = term.name.lower() + (f"_{seen[term.name]}" if times[term.name] > 1 else "")
            name += f"_of_guide_{number + 1}" if number else ""
            built.modules[name] = term.of(distill, student, guide)
            built.terms[name], built.guides[name] = term, number
            if not getattr(built.modules[name], "features_only", False):
                built.heads.add(number)
    return built


def silent(term: Term) -> bool:
    """Whether its alpha is 0, or all that it has of weights. What is not given a number, the loss decides itself, and
    multiplies it by `weight` if it has that."""
    if term.alpha == 0:
        return True
    weights = {k: value for k, value in term.args.items() if "weight" in k and not isinstance(value, str | bool)}
    whole = weights.get("weight")
    return bool(weights) and all(value == 0 or (value is None and whole == 0) for value in weights.values())


def divisor(detector: Network) -> int:
    """What height and width of its batches are padded to a multiple of: the coarsest map's stride, 32 for most.

    As the papers' recipes and torchvision have it. The coarser levels of a pyramid take any size, and where anchors
    lie can depend on it.
    """
    return max(detector.backbone.strides)


class Size(NamedTuple):
    """How large a model is."""

    parameters: int  # without those that are there in training alone
    flops: int  # of one image's forward pass


def shape(model: Model, num_classes: int) -> Network:
    """A model without numbers. Raises `Invalid` when its parts do not fit."""
    try:
        with torch.device("meta"):
            return network(model, num_classes).eval()
    except (RuntimeError, ValueError, TypeError) as error:
        raise Invalid(f"{model.detector} on {model.backbone} cannot be built: {error}") from error


def size(built: Network, image: tuple[int, int]) -> Size:
    """How large a model without numbers is, found by sending an image (height, width) through it.

    Raises `Invalid` when its parts do not fit.
    """
    from torch.utils.flop_counter import FlopCounterMode  # loads Triton, which few processes need

    with torch.device("meta"):
        try:
            multiple = divisor(built)
            padded = [-(-side // multiple) * multiple for side in image]
            counter = FlopCounterMode(display=False, custom_mapping=deformable())
            with counter, torch.no_grad():
                outputs = built.eval()(torch.zeros(1, 3, *padded))
                if hasattr(built, "second_stage"):
                    built.second_stage(built.most_regions(outputs.features))
        except (RuntimeError, ValueError, TypeError) as error:
            raise Invalid(f"an image of {image} does not pass through it: {error}") from error
    return Size(parameters(built), counter.get_total_flops())


_sizes: dict[tuple[str, str, int, tuple[int, int]], Size] = {}


def size_of(model: Model, num_classes: int, image: tuple[int, int], built: Network | None = None) -> Size:
    """The size of a model, whatever weights it starts from, for images (height, width) of so many classes.

    To send an image through a large model takes a second, so what a process has found it remembers. `built`: the model
    without numbers, where it is there. Raises `Invalid` as `size` does.
    """
    key = (model.detector.canonical, model.backbone.canonical, num_classes, image)
    if key not in _sizes:
        _sizes[key] = size(built or shape(model, num_classes), image)
    return _sizes[key]


def parameters(built: Network) -> int:
    """How many a model has, those of training alone left out."""
    return sum(p.numel() for name, p in built.named_parameters() if not name.startswith(training_only(built)))


def deformable() -> dict[Any, Any]:
    """How to count the FLOPs of deformable convolutions, which torch does not know; nothing before they are loaded."""
    if not hasattr(torch.ops.torchvision, "deform_conv2d"):
        return {}

    def flops(image: torch.Size, weight: torch.Size, *rest: Any, out_shape: torch.Size, **more: Any) -> int:
        return 2 * out_shape.numel() * weight[1:].numel()

    return {torch.ops.torchvision.deform_conv2d: flops}


def check_recipe(built: Network, recipe: Recipe) -> None:
    """Raise `Invalid` for an optimizer that torch refuses, and for frozen stages that the model does not have."""
    try:
        recipe.optimizer.of(optim, [nn.Parameter(torch.zeros(1))], recipe.lr)
    except ValueError as error:
        raise Invalid(str(error), ("recipe", "optimizer")) from None
    built.backbone.freeze(recipe.freeze)


def learns_statistics(built: Network, recipe: Recipe) -> bool:
    """Whether it has batch norms that take their statistics from the images that a worker looks at."""
    fixed = {id(one) for one in built.backbone.modules()} if recipe.fixed_norm else ()
    return any(isinstance(one, nn.modules.batchnorm._BatchNorm) and id(one) not in fixed for one in built.modules())


def draws(built: Network) -> bool:
    """Whether it leaves something out at random while it looks in training."""
    return any(drawing(built))


def apart(terms: tuple[Term, ...], student: Network, guides: Sequence[Network]) -> list[str]:
    """What each worker finds or draws for itself in training, by the `apart` of a detector and of the losses with these
    guides, as in `the statistics of PKD`. Another number of workers is then another training."""
    with torch.device("meta"):
        every = [student, *losses(terms, student, guides).modules.values()]
    return sorted({f"{one.apart} {type(one).__name__}" for one in every if getattr(one, "apart", "")})


def check_pair(terms: tuple[Term, ...], student: Network, teacher: Network) -> None:
    """Raise `Invalid`, at (index, name) of the loss, when it cannot take this teacher and this student."""
    for index, term in enumerate(terms):
        if silent(term):
            continue
        try:
            with torch.device("meta"):
                term.of(distill, student, teacher)
        except Invalid as error:
            raise error.under(index, term.name) from None


def check_terms(terms: tuple[Term, ...], recipe: Recipe, *, images: int) -> None:
    """Raise `Invalid`, at (index, epochs), for a loss that would never count in a training on so many images."""
    for index, term in enumerate(terms):
        try:
            teaching.check_time(term, term.name, steps=-(-images // recipe.batch), epochs=recipe.epochs)
        except Invalid as error:
            raise error.under(index) from None


def steps(found: Any, batch: int, *, group: bool) -> int:
    """Batches in an epoch of a data set that was read, and so steps of the optimizer."""
    return sampling.steps(sampling.groups(found.train.sizes, group=group), batch)


def image_size(found: Any, recipe: Recipe) -> tuple[int, int]:
    """(height, width) of a typical training image of a data set, before padding."""
    if recipe.resize:
        largest = recipe.resize.largest
        return lengths(largest.short)[1], largest.long
    height, width = found.train.sizes[0]
    return int(height), int(width)
