"""Run a stage as a Ray Train `TorchTrainer`: in this process, or with several workers."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Thread
from traceback import format_exception
from typing import Any

# How long Ray Train tries to place workers before it says that it cannot; nodes may have gone since they were counted.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
# A process less that takes seconds to start: whoever drives a study hears itself of nodes that are to be taken away.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer
from torch import nn

from trainers import workers
from trainers.cohort import Crowded, Ended, train_together
from trainers.deaths import why
from trainers.lean import Lean
from trainers.lease import Lost
from trainers.loop import Paused, Stopped
from trainers.meeting import Meeting
from trainers.memory import Fewer
from trainers.order import Order
from trainers.post import Beat, End
from trainers.pulse import Pulse
from trainers.result import Result
from trainers.scratch import scratch
from trainers.store import Store
from trainers.visible import awaited
from trainers.workplace import Entry, Workplace


def run_here(
    orders: Sequence[Order], workplace: Callable[[Order, torch.device], Workplace], ended: Ended, *, cpus: float
) -> None:
    """Train stages together in this process, by TorchTrainer's local mode: no other process has to load torch for it.
    `workplace`: of a stage, on the device that was found; `ended` as `train_together` has it."""

    def loop() -> None:
        torch.set_num_threads(max(1, int(cpus)))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        train_together(orders, [workplace(order, device) for order in orders], ended)

    TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit()


LATE = "WorkerGroupStartupTimeoutError"  # what Ray Train says when not all workers find room
# What gloo says of a worker that has gone; it has no error of its own for that.
GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "Read timeout")
BEAT = 1.0  # seconds between two signs of life of a worker, or less where it must be found out sooner
PATIENCE = 86400  # seconds that workers wait for the first while it measures; torch would give up after 30 minutes
TRIES = 3  # how often workers that die are replaced while no epoch comes


class Deaths(UserCallback):
    """Says of which worker the process died, and that all begin again: Ray does so without a word. They do not where no
    stage is left, which is an error of the controller's and so the end."""

    def __init__(self, post: Any, count: int) -> None:
        self.post, self.count = post, count

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        if not ray.get(self.post.still.remote()):
            raise RuntimeError("all stages have ended")
        self.post.forget.remote()
        self.post.tell.remote({"epoch": 0.0, "workers": 0.0})
        causes = {rank: getattr(error, "health_check_failure", error) for rank, error in worker_exceptions.items()}
        dead = {rank: one for rank, one in causes.items() if isinstance(one, RayActorError | OutOfMemoryError)}
        told = [f"worker {rank} of {self.count} {why(str(cause), None)}" for rank, cause in dead.items()]
        if not dead and any(map(of_others, causes.values())):  # of a node that is gone Ray may not know yet
            told = [f"one of {self.count} workers is gone"]
        for said in told:
            self.post.tell.remote(f"{said}; all go on from the last epoch")


class StageFailed(RuntimeError):
    """A worker of the stage failed in a way that trying again does not mend. `traceback`: that worker's."""

    def __init__(self, why: str, traceback: str = "") -> None:
        super().__init__(why)
        self.traceback = traceback


class Again(RuntimeError):
    """The stage goes on from its last epoch with as many workers as there is room for then.

    why: "lost", if workers went; "late", if not all of them found room; "released", if somebody asked for it.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def run_on_workers(
    orders: Sequence[Order],
    *,
    num_workers: int,
    threads: int,
    demand: Mapping[str, float],
    labels: Mapping[str, str],
    post: Any,
    fixed: bool = True,
) -> None:
    """Train stages together with data-parallel workers, each of so many threads; the post is told of each how it ended.

    A worker that dies is replaced and the stages go on from their last epochs, at most `TRIES` times without coming any
    further, and so they do with half the images at once where memory runs out for one. An error in a stage's own
    training is the end of that stage, and the others begin again without it. `demand`: what a worker asks of its node,
    under Ray's names; `labels`: what the node must have. `Again` is raised when not all find room, so that others need
    not wait behind them; where several stages lost workers too often, as nobody knows for which of them; and when some
    die where their number is not `fixed`, as it may be another next time.
    """
    spared = sum(order.stage.recipe.batch.bit_length() for order in orders)  # how often images can be halved
    failures = FailureConfig(max_failures=TRIES + spared + len(orders) - 1, controller_failure_limit=0)
    if not fixed:
        failures = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)
    with scratch() as folder:
        trainer = Lean(
            _worker,
            train_loop_config={
                "orders": [order.model_dump_json() for order in orders],
                "post": post,
                "threads": threads,
            },
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu="GPU" in demand,
                resources_per_worker=dict(demand),
                label_selector=dict(labels) or None,
            ),
            torch_config=Meeting(timeout_s=PATIENCE),
            run_config=RunConfig(
                name=orders[0].stage.key,
                storage_path=folder,
                failure_config=failures,
                callbacks=[Deaths(post, num_workers)],
            ),
        )
        _fit(trainer, post, fixed=fixed, together=len(orders) > 1)


def _fit(trainer: TorchTrainer, post: Any, *, fixed: bool, together: bool) -> None:
    """Train; once more if only memory ran out, or so many times if workers did not start.

    Raises `Again`, and `StageFailed` if they never start.

    Ray counts the deaths of a whole training. Here those before an epoch do not count against what comes after it.
    """
    tries = TRIES
    while True:
        before, epochs = ray.get([post.fewest.remote(), post.epochs.remote()])
        try:
            trainer.fit()
            return
        except TrainingFailedError as error:
            if not ray.get(post.still.remote()):
                return
            cause = getattr(error, "controller_failure", None)
            if type(cause).__name__ == LATE:
                raise Again("late") from error
            if together:
                raise Again("died") from error
            if not fixed:
                if ray.get(post.fewest.remote()) == before:
                    raise Again("lost") from error
            elif cause is None:
                if ray.get(post.epochs.remote()) <= epochs:
                    raise
            else:
                tries -= 1
                if tries < 0:
                    said = str(cause).strip()
                    raise StageFailed(f"its workers do not find together: {said.splitlines()[-1]}", said) from error


def outcome(order: Order, end: End) -> Result | BaseException:
    """What a stage has come to that ended in this way."""
    match end.how:
        case "done":
            result = awaited(lambda: Store(order.store).get(order.stage))
            unseen = f"its result cannot be seen in {order.store} from {platform.node()}: does every node see it?"
            return result or StageFailed(unseen)
        case "failed":
            return StageFailed(end.reason, end.traceback)
        case "paused":
            return Paused()
        case "stopped":
            return Stopped()
        case how:
            return Again(how)


def _worker(config: dict[str, Any]) -> None:
    """What each of several workers does."""
    post, over = config["post"], Event()
    still = ray.get(post.still.remote())  # when it begins again some have ended
    orders = [Order.model_validate_json(text) for text in config["orders"]]
    orders = [order for order in orders if order.stage.key in still]
    if not orders:
        return
    torch.set_num_threads(config["threads"])
    if workers.rank() == 0:
        ray.get(post.tell.remote({"epoch": 0.0, "workers": float(workers.count())}))  # from now on they train
    pulse, asked, fewest = Pulse(), Event(), ray.get(post.fewest.remote())
    beating = (post, workers.rank(), pulse, asked, over, min(BEAT, orders[0].silence / 6))
    Thread(target=_beat, args=beating, daemon=True).start()
    orders = [
        order.model_copy(update={"micro_batch": fewest.get(order.stage.key, order.micro_batch)}) for order in orders
    ]
    try:
        train_together(
            orders,
            [_workplace(order, post, stop=asked.is_set, pulse=pulse) for order in orders],
            partial(_end, post),
        )
    finally:
        over.set()


def _workplace(order: Order, post: Any, *, stop: Callable[[], bool], pulse: Pulse) -> Workplace:
    """Of one of several workers."""
    device, key = ray.train.torch.get_device(), order.stage.key

    def report(entry: Entry) -> None:
        # All workers learn of a wish to stop at the same epoch, or the others would wait for one that left.
        stopping = torch.zeros(1, device=device)
        if workers.rank() == 0:
            ray.get(post.report.remote(key, entry))
            stopping += ray.get(post.leave.remote(entry["epoch"] == order.stage.recipe.epochs))
        if workers.total(stopping).item() > 0:
            raise Stopped
        ray.train.report(entry)

    def wrap(task: nn.Module) -> nn.Module:
        if workers.count() == 1:
            return task
        return nn.parallel.DistributedDataParallel(task, device_ids=[device] if device.type == "cuda" else None)

    def say(text: str) -> None:
        ray.get(post.report.remote(key, text))

    return Workplace(device, report=report, stop=stop, wrap=wrap, say=say, pulse=pulse)


def _end(post: Any, key: str, how: Result | BaseException) -> None:
    """A stage has ended for one of its workers, or it begins again with all others."""
    match how:
        case Fewer():
            ray.get(post.lessen.remote(key, how.micro_batch, str(how)))
            return
        case Lost():
            return  # another run has it; that is waited for
        case Result():
            end = End("done")
        case Paused():
            end = End("paused")
        case Stopped():
            end = End("stopped")
        case Crowded():
            end = End("crowded")
        case _ if of_others(how):
            return
        case _:
            end = End("failed", f"{type(how).__name__}: {how}", "".join(format_exception(how)))
    # The first worker is the last to know that a stage is done, as it stores it; of an error any may be the only one.
    if workers.rank() == 0 or end.how == "failed":
        ray.get(post.end.remote(key, end))


def of_others(error: BaseException) -> bool:
    """Whether a worker failed only because another one is gone: it was told so where they wait for each other."""
    network = (torch.distributed.DistBackendError, torch.distributed.DistNetworkError)
    return isinstance(error, network) or any(word in str(error) for word in GONE)


def _beat(post: Any, rank: int, pulse: Pulse, asked: Event, over: Event, every: float) -> None:
    """Give signs of life, and learn whether to stop: also when nobody is there any more who could say so."""
    here = ray.get_runtime_context()
    actor, node = here.current_actor, here.get_node_id()
    while not over.is_set():
        try:
            stopping = ray.get(post.beat.remote(rank, Beat(actor, node, pulse.silent())))
        except RayError:
            stopping = True
        if stopping:
            asked.set()
        over.wait(every)
