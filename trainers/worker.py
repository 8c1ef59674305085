"""One worker's part of a stage, from its teacher to its stored result; resumes by itself where it was left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import nn

from trainers import build, teacher, workers
from trainers.call import Call, Count, Index, Invalid, Spec
from trainers.data.batches import Batches
from trainers.evaluate import measure
from trainers.loop import Epoch, Training
from trainers.outputs import Network
from trainers.spec import Stage
from trainers.store import Result, Store
from trainers.task import Task
from trainers.teaching import Lessons, Teaching, no_lesson
from trainers.usage import Usage, Watch

log = logging.getLogger(__name__)

Entry = dict[str, float]


class Took(TypedDict):
    """What a stage took: fields of its result."""

    seconds: float
    usage: Usage | None


class Order(Spec):
    """A stage, and where to train it. Nothing here but the stage changes the weights."""

    stage: Stage
    data: Call  # the data set as it can be found here
    store: str
    loader_workers: Index = 0
    evaluate_every: Count = 1  # epochs
    bad_images: Index = 10


def work(
    order: Order,
    *,
    device: torch.device,
    report: Callable[[Entry], None] = lambda entry: None,
    stop: Callable[[], bool] = lambda: False,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    say: Callable[[str], None] = log.warning,
) -> Result:
    """Train a stage and store it; -> its result.

    `report` gets each epoch's entry once it can be resumed from, `stop` is asked between two steps, `wrap` makes the
    task data-parallel, `say` is told what the user should know. Everything that goes wrong is
    raised, and nothing finished is lost by it.
    """
    store, stage = Store(order.store), order.stage
    result = store.get(stage)
    if result is not None:  # another driver, or this one before it was killed
        store.drop_state(stage.key)
        return result
    data, watch = _data(order), Watch(device)
    torch.manual_seed(stage.seed)
    given = stage.model.weights
    student = build.detector(stage, store.published(given.sha256) if given else None).to(device)
    if stage.published:
        return _measured(store, order, student, data, watch)
    guides = [
        teacher.verified(store, guide, data, device=device, loader_workers=order.loader_workers)
        for guide in stage.guides
    ]
    losses = build.losses(stage.distill, student, guides)
    task = Task(student, losses.modules, losses.guides).to(device)
    training = Training(task, stage.recipe, batches(order, data, student, say), device=device)
    lessons: Lessons = no_lesson
    if losses.modules:
        steps = training.batches.steps
        lessons = Teaching(guides, losses.terms, losses.guides, stage, steps=steps)
    training.wrapped = wrap(training.task)
    history, seconds = _resume(store, stage, training, watch)
    started = time.perf_counter() - seconds
    for entry in history:
        report(entry)
    for epoch in training.epochs(lessons, stop=stop):
        entry = {"epoch": float(epoch.number), **epoch.metrics}
        with watch.measures():
            entry |= _validate(order, training, data, device)
        entry["seconds"] = seconds = time.perf_counter() - started
        history.append(entry)
        usage = watch.note()
        if workers.rank() == 0:
            _keep(store, stage, epoch, history, seconds, usage)
        report(entry)
    metrics = {name: value for name, value in history[-1].items() if name.startswith("val/")}
    images = stage.recipe.epochs * training.batches.steps * stage.recipe.batch
    took: Took = {"seconds": seconds, "usage": watch.usage(images=images, seconds=seconds)}
    _finish(store, order, training.product, data, metrics, history=history, took=took, device=device)
    return _stored(store, stage)


def _data(order: Order) -> Any:
    """The data set of the stage, as it is here. Raises `Invalid` when it is another."""
    data, wanted = build.dataset(order.data), order.stage.data
    if build.identity(data) != wanted.fingerprint:
        changed = "its annotations, its image list or its metric changed"
        raise Invalid(f"{order.data} is not the data of this study any more: {changed}")
    if wanted.masks and build.masks(data) != wanted.masks:
        raise Invalid(f"{order.data} is not the data of this study any more: its masks changed")
    return data


def _measured(store: Store, order: Order, detector: Network, data: Any, watch: Watch) -> Result:
    """Store published weights with the score that they have here."""
    started = time.perf_counter()
    recipe, device = order.stage.recipe, watch.device
    with watch.measures():
        found = measure(detector, data, recipe, device=device, loader_workers=order.loader_workers)
    watch.note()
    if workers.rank() == 0:

        def check(result: Result) -> None:
            """What was read back is what was measured just now, so it need not be measured again."""
            stored = store.weights(result)
            if not all(torch.equal(stored[name], value.cpu()) for name, value in detector.state_dict().items()):
                raise teacher.NotTheTeacher(f"the weights of {result.key} were not stored as they are; try again")
            store.mark_measured(result)

        metrics = {f"val/{name}": value for name, value in found.items()}
        seconds = time.perf_counter() - started
        took: Took = {"seconds": seconds, "usage": watch.usage(images=0, seconds=seconds)}
        _put(store, order, detector, metrics, check=check, score=build.metric(data).score, took=took, device=device)
    return _stored(store, order.stage)


def _stored(store: Store, stage: Stage) -> Result:
    """The result that the first worker has stored."""
    workers.barrier()
    result = store.get(stage)
    assert result is not None, "it was just stored"
    return result


def batches(order: Order, data: Any, student: Network, say: Callable[[str], None] = log.warning) -> Batches:
    """The training batches of this worker."""
    recipe = order.stage.recipe
    return Batches(
        data.train,
        batch=recipe.batch,
        seed=order.stage.seed,
        flip=recipe.flip,
        resize=recipe.resize,
        crop=recipe.crop,
        group=recipe.group,
        divisor=build.divisor(student),
        rank=workers.rank(),
        world=workers.count(),
        loader_workers=order.loader_workers,
        masks=getattr(student, "needs_masks", False),
        ignore=recipe.ignore,
        bad_images=order.bad_images,
        say=say,
    )


def _resume(store: Store, stage: Stage, training: Training, watch: Watch) -> tuple[list[Entry], float]:
    """Bring the training to where it was left; -> the epochs so far and the seconds that they took."""
    kept = store.load_state(stage.key)
    if kept is None or kept["key"] != stage.key:  # a state that somebody copied here is not this stage's
        return [], 0.0
    training.restore(kept["training"])
    watch.restore(kept.get("usage"))
    return kept["history"], kept["seconds"]


def _keep(
    store: Store,
    stage: Stage,
    epoch: Epoch,
    history: list[Entry],
    seconds: float,
    usage: Mapping[str, float | None] | None,
) -> None:
    state = {"key": stage.key, "training": epoch.state, "history": history, "seconds": seconds, "usage": usage}
    store.save_state(stage.key, epoch.number, state)


def _validate(order: Order, training: Training, data: Any, device: torch.device) -> Entry:
    """The validation metrics after an epoch, by all workers, when it is time for them."""
    last = training.epoch == order.stage.recipe.epochs
    if not (last or training.epoch % order.evaluate_every == 0):
        return {}
    recipe = order.stage.recipe
    found = measure(training.product, data, recipe, device=device, loader_workers=order.loader_workers)
    return {f"val/{name}": value for name, value in found.items()}


def _finish(
    store: Store,
    order: Order,
    product: Network,
    data: Any,
    metrics: Entry,
    *,
    history: list[Entry],
    took: Took,
    device: torch.device,
) -> None:
    """Store the result, once its weights were read back and have its score; then forget how it came about.

    The first worker stores it, and all measure what was stored.
    """

    def check(result: Result | None) -> None:
        stored: Result = workers.told(result)
        read_back = teacher.restore(store, stored, device=device)
        teacher.check(store, stored, read_back, data, device=device, loader_workers=order.loader_workers)

    if workers.rank():
        check(None)
        return
    _put(
        store,
        order,
        product,
        metrics,
        check=check,
        score=build.metric(data).score,
        history=history,
        took=took,
        device=device,
    )
    store.drop_state(order.stage.key)


def _put(
    store: Store,
    order: Order,
    product: Network,
    metrics: Entry,
    *,
    check: Callable[[Result], None],
    score: str,
    took: Took,
    device: torch.device,
    history: Sequence[Entry] = (),
) -> None:
    store.put(
        order.stage,
        {name: tensor.detach().cpu().contiguous() for name, tensor in product.state_dict().items()},
        check=check,
        score=metrics[f"val/{score}"],
        metrics=metrics,
        history=list(history),
        **took,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    )
