"""One worker's part of a stage, from its teacher to its stored result; resumes by itself where it was left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from trainers import build, sources, speed, teacher, workers
from trainers.asked import Asked
from trainers.balance import balanced
from trainers.chance import Chance
from trainers.course import Course
from trainers.evaluate import measure
from trainers.feeding import batches
from trainers.footprint import takes
from trainers.lease import Lease, Lost
from trainers.loop import Paused, Stopped, Training
from trainers.order import Order
from trainers.outputs import Network
from trainers.result import Result
from trainers.selection import Selection, kept
from trainers.spec import Stage
from trainers.staging import opened
from trainers.store import Store
from trainers.sync_norm import share_statistics
from trainers.task import Task
from trainers.teaching import Lessons, Teaching, no_lesson
from trainers.turns import Turn, Turns, alone
from trainers.usage import Watch
from trainers.workplace import Entry, Workplace


def work(order: Order, *, device: torch.device, **hooks: Any) -> Result:
    """Train a stage with nobody beside it; `hooks` are fields of its workplace. See `turns`."""
    return alone(turns(order, Workplace(device, **hooks)))


def turns(order: Order, here: Workplace) -> Turns[Result]:
    """Train a stage and store it, step by step; -> its result.

    Everything that goes wrong is raised, and nothing finished is lost by it. Raises `Paused` after the epoch that the
    order says, if that is not the last; the store then has what the stage has reached.
    """
    store, stage, stop, say = Store(order.store), order.stage, here.stop, here.say
    while True:
        lease = Lease(store.place.file(stage.key), expiry=order.lease, study=order.study, run=order.run)
        try:
            ours = yield from workers.agreed(lease.wait(done=lambda: store.check(stage), stop=stop, say=say))
            # Of several workers the first decides for all: what others see of the store may be older.
            result: Result | None = workers.told(None if ours or workers.rank() else store.get(stage))
            if result is not None:  # another driver, or this one before it was killed
                store.drop_state(stage.key)
                return result
            if ours:
                store.place.tidy(stage.key)
                return (yield from _work(order, here, guard=lease.check))
            if workers.told(stop()):
                raise Stopped
        except Lost as lost:
            if workers.count() > 1:
                raise  # all of them begin again
            say(str(lost))
        finally:
            here.pulse.rest()
            here.shared.leave(here.clock)
            lease.release()


def _work(order: Order, here: Workplace, *, guard: Callable[[], None]) -> Turns[Result]:
    """Train a stage that nobody else trains, of which `guard` makes sure whenever something is written."""
    store, stage, device = Store(order.store, guard=guard), order.stage, here.device
    code = sources.of(stage, order.data)
    data, watch = _opened(order, here), Watch(device)
    speed.check(order, device=device)
    torch.manual_seed(stage.seed)
    given = stage.model.weights
    student = build.detector(stage, store.published(given.sha256) if given else None).to(device)
    if stage.published:
        return _measured(store, order, student, data, watch, code)
    training, lessons = _prepared(order, here, store, student, data)
    training.wrapped = here.wrap(training.task)
    course = Course(stage, training, Selection(stage.recipe, score=build.metric(data).score), watch, code)
    course.resume(store, here.say)
    for entry in course.history:
        here.report(entry)
    _pause(store, order, course)
    try:
        for epoch in training.turns(lessons, stop=here.pulse.beating(here.stop, device=device)):
            if isinstance(epoch, Turn):
                yield epoch
                continue
            here.pulse.rest()
            with watch.measures():
                measured = _validate(order, training, data, device)
            entry = course.note(epoch, measured)
            if workers.rank() == 0:
                course.tell(here.say)
                course.keep(store, epoch)
            here.report(entry)
            _pause(store, order, course)
    except Stopped:
        here.pulse.rest()
        course.halt(store)
        raise
    product = build.trained(stage, course.weights(), device=device)
    metrics = course.metrics() | _tested(order, product, data, device)
    _finish(store, order, product, data, metrics, course.facts(), device=device)
    return _stored(store, stage)


def _asked(guide: Network, order: Order, device: torch.device) -> Asked:
    """A guide as an order has it asked."""
    return Asked(guide, speed.guide(guide, order, device=device))


def _opened(order: Order, here: Workplace) -> Any:
    """The data of a stage, for all workers or, if one of them was stopped while it copied them, for none."""
    which = (order.data.canonical, order.stage_data, order.content, order.stage.data)
    data = None
    with suppress(Stopped):
        data = here.shared.once(which, lambda: opened(order, stop=here.stop, say=here.say))
    if workers.anywhere(data is None, device=here.device):
        raise Stopped
    return data


def _prepared(order: Order, here: Workplace, store: Store, student: Network, data: Any) -> tuple[Training, Lessons]:
    """The training of a student at its beginning, and what its guides will say."""
    stage, device = order.stage, here.device
    with Chance(device).again():  # what is drawn for a guide, or not as it is there already, changes no student
        guides = [
            here.shared.once(guide.key, partial(_guide, order, store, guide, data, device)) for guide in stage.guides
        ]
    fed = here.shared.share(batches(order, data, student, here.say, device=device), here.clock, device=device)
    if order.sync_batch_norm:
        share_statistics(student)
    losses = build.losses(stage.distill, student, guides)
    for network in (student, *guides):
        speed.laid_out(network, order, device=device)
    task = Task(student, losses.modules, losses.guides).to(device)
    speed.hasten(task, order, here.say, device=device)
    training = Training(
        task,
        stage.recipe,
        fed,
        device=device,
        balance=balanced(losses.terms, steps=fed.steps, epochs=stage.recipe.epochs),
        micro_batch=order.micro_batch,
        clock=here.clock,
        say=here.say,
    )
    if not losses.modules:
        return training, no_lesson
    how = (order.compile, order.teacher_precision, stage.recipe.precision)
    asked = []
    for number, (of, guide) in enumerate(zip(stage.guides, guides, strict=True)):
        make = partial(_asked, guide, order, device)
        asked.append(here.shared.guide((of.key, *how), make, here.clock, head=number in losses.heads))
    looks = [fed.asked(guide) for guide in asked]
    return training, Teaching(looks, losses.terms, losses.guides, stage, steps=fed.steps)


def _guide(order: Order, store: Store, guide: Stage, data: Any, device: torch.device) -> Network:
    return teacher.verified(store, guide, data, device=device, loader_workers=order.loader_workers)


def _measured(store: Store, order: Order, detector: Network, data: Any, watch: Watch, code: dict[str, str]) -> Result:
    """Store published weights with the score that they have here."""
    started = time.perf_counter()
    recipe, device = order.stage.recipe, watch.device
    with watch.measures():
        found = measure(detector, data, recipe, device=device, loader_workers=order.loader_workers)
    watch.note()
    seconds = time.perf_counter() - started
    detector.requires_grad_(False)
    tested = _tested(order, detector, data, device)
    if workers.rank() == 0:

        def check(result: Result) -> None:
            """What was read back is what was measured just now, so it need not be measured again."""
            stored = store.weights(result)
            if not all(torch.equal(stored[name], value.cpu()) for name, value in detector.state_dict().items()):
                raise teacher.NotTheTeacher(f"the weights of {result.key} were not stored as they are; try again")
            store.mark_measured(result)

        metrics = {f"val/{name}": value for name, value in found.items()} | tested
        usage = watch.usage(images=0, seconds=seconds)
        facts = {"history": [], "seconds": seconds, "usage": usage, "sources": code}
        _put(store, order, detector, data, metrics, check=check, facts=facts, device=device)
    return _stored(store, order.stage)


def _stored(store: Store, stage: Stage) -> Result:
    """The result that the first worker has stored."""
    workers.barrier()
    result: Result | None = workers.told(None if workers.rank() else store.get(stage))
    assert result is not None, "it was just stored"
    return result


def _pause(store: Store, order: Order, course: Course) -> None:
    """Raise `Paused` if the stage is as far as the order has it, and was measured, once the store has its epochs."""
    if order.until is None or not order.until <= len(course.history) < order.stage.recipe.epochs:
        return
    if not any(name.startswith("val/") for entry in course.history for name in entry):
        return  # it was begun by somebody who measures seldom: one epoch more is measured
    if workers.rank() == 0:
        store.save_pause(order.stage.key, course.history)
    raise Paused


def _validate(order: Order, training: Training, data: Any, device: torch.device) -> Entry:
    """The validation metrics after an epoch, by all workers, when it is time for them.

    That is after each where the best is kept: how often somebody wants to look must not change the weights.
    """
    last = training.epoch == order.stage.recipe.epochs
    reached = order.until is not None and training.epoch >= order.until
    wanted = last or reached or order.stage.recipe.select != "last"
    if not (wanted or training.epoch % order.evaluate_every == 0):
        return {}
    recipe = order.stage.recipe
    found = measure(training.product, data, recipe, device=device, loader_workers=order.loader_workers)
    return {f"val/{name}": value for name, value in found.items()}


def _tested(order: Order, detector: Network, data: Any, device: torch.device) -> Entry:
    """What is measured, once and by all workers, on the images on which nothing was selected, if there are any."""
    if data.test is None:
        return {}
    recipe = order.stage.recipe
    found = measure(detector, data, recipe, device=device, loader_workers=order.loader_workers, split=data.test)
    return {f"test/{name}": value for name, value in found.items()}


def _finish(
    store: Store,
    order: Order,
    product: Network,
    data: Any,
    metrics: Entry,
    facts: dict[str, Any],
    *,
    device: torch.device,
) -> None:
    """Store the result with its `facts`, once its weights were read back and have its score.

    Then it is forgotten how it came about. The first worker stores it, and all measure what was stored.
    """

    def check(result: Result | None) -> None:
        stored: Result = workers.told(result)
        read_back = teacher.restore(store, stored, device=device)
        teacher.check(store, stored, read_back, data, device=device, loader_workers=order.loader_workers)

    if workers.rank():
        check(None)
        return
    _put(store, order, product, data, metrics, check=check, facts=facts, device=device)
    store.drop_state(order.stage.key)


def _put(
    store: Store,
    order: Order,
    product: Network,
    data: Any,
    metrics: Entry,
    *,
    check: Callable[[Result], None],
    facts: dict[str, Any],
    device: torch.device,
) -> None:
    store.put(
        order.stage,
        kept(product),
        check=check,
        score=metrics[f"val/{build.metric(data).score}"],
        metrics=metrics,
        footprint=takes(product, data.val, order.stage.recipe, device=device),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        **facts,
    )
