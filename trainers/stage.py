"""Run a stage as a Ray Train `TorchTrainer`: in this process, or with several workers. The only Ray in this package."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from typing import Any

# How long Ray Train tries to place workers before it says that it cannot; nodes may have gone since they were counted.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn

from trainers import workers
from trainers.cohort import Ended, train_together
from trainers.deaths import why
from trainers.lease import Lost
from trainers.loop import Paused, Stopped
from trainers.memory import Fewer
from trainers.post import Beat
from trainers.pulse import Pulse
from trainers.scratch import scratch
from trainers.store import Result, Store
from trainers.visible import awaited
from trainers.worker import Order, work
from trainers.workplace import Entry, Workplace

log = logging.getLogger(__name__)


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


class Deaths(UserCallback):
    """Says of which worker the process died, and that all begin again: Ray does so without a word."""

    def __init__(self, post: Any, count: int) -> None:
        self.post, self.count = post, count

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        self.post.forget.remote()
        self.post.report.remote({"epoch": 0.0, "workers": 0.0})
        for rank, error in worker_exceptions.items():
            cause = getattr(error, "health_check_failure", error)
            if isinstance(cause, RayActorError | OutOfMemoryError):
                said = f"worker {rank} of {self.count} {why(str(cause), None)}; all go on from the last epoch"
                self.post.report.remote(said)


class StageFailed(RuntimeError):
    """A worker of the stage failed in a way that trying again does not mend."""


class Again(RuntimeError):
    """The stage goes on from its last epoch with as many workers as there is room for then.

    why: "lost", if workers went; "late", if not all of them found room; "released", if somebody asked for it.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def run_on_workers(
    order: Order,
    *,
    num_workers: int,
    threads: int,
    demand: Mapping[str, float],
    labels: Mapping[str, str],
    post: Any,
    fixed: bool = True,
    tries: int = 3,
) -> Result:
    """Train a stage with data-parallel workers, each of so many threads. A worker that dies is replaced and the stage
    goes on from its last epoch, at most `tries` times, and so it does with half the images at once where memory runs
    out; an error in the training itself is final and raised as `StageFailed`. `demand`: what a worker asks of its node,
    under Ray's names; `labels`: what the node must have. Their number may be another next time where it is not `fixed`:
    `Again` is raised when some die or do not come, or the post has them released."""
    spared = order.stage.recipe.batch.bit_length()  # how often images can be halved
    failures = FailureConfig(max_failures=tries + spared)
    if not fixed:
        failures = FailureConfig(max_failures=0, controller_failure_limit=0, max_preemption_failures=0)
    with scratch() as folder:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"order": order.model_dump_json(), "post": post, "threads": threads},
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu="GPU" in demand,
                resources_per_worker=dict(demand),
                label_selector=dict(labels) or None,
            ),
            torch_config=TorchConfig(timeout_s=PATIENCE),
            run_config=RunConfig(
                name=order.stage.key,
                storage_path=folder,
                failure_config=failures,
                callbacks=[Deaths(post, num_workers)],
            ),
        )
        _fit(trainer, post, fixed=fixed)
    failure = ray.get(post.failed.remote())
    if failure is not None:
        raise StageFailed(failure)
    if ray.get(post.paused.remote()):
        raise Paused
    if ray.get(post.stopped.remote()):
        raise Stopped
    if ray.get(post.has_left.remote()):
        raise Again("released")
    result = awaited(lambda: Store(order.store).get(order.stage))
    if result is None:
        raise StageFailed(f"its result cannot be seen in {order.store} from {platform.node()}: does every node see it?")
    return result


def _fit(trainer: TorchTrainer, post: Any, *, fixed: bool) -> None:
    """Train; once more if it was only that memory ran out. Raises `Again`."""
    while True:
        before = ray.get(post.fewest.remote())
        try:
            trainer.fit()
            return
        except TrainingFailedError as error:
            if fixed:
                raise
            if ray.get(post.failed.remote()) is not None:
                return
            if ray.get(post.fewest.remote()) == before:
                cause = getattr(error, "controller_failure", None)
                raise Again("late" if type(cause).__name__ == LATE else "lost") from error


def _worker(config: dict[str, Any]) -> None:
    """What each of several workers does."""
    post = config["post"]
    if ray.get(post.failed.remote()) is not None:
        return  # this is a new try of something that trying does not mend
    torch.set_num_threads(config["threads"])
    device = ray.train.torch.get_device()

    def report(entry: Entry) -> None:
        # All workers learn of a wish to stop at the same epoch, or the others would wait for one that left.
        stopping = torch.zeros(1, device=device)
        if workers.rank() == 0:
            ray.get(post.report.remote(entry))
            stopping += ray.get(post.leave.remote(entry["epoch"] == order.stage.recipe.epochs))
        if workers.total(stopping).item() > 0:
            raise Stopped
        ray.train.report(entry)

    order, pulse, asked, over = Order.model_validate_json(config["order"]), Pulse(), Event(), Event()
    if workers.rank() == 0:
        ray.get(post.report.remote({"epoch": 0.0, "workers": float(workers.count())}))  # from now on it trains

    def wrap(task: nn.Module) -> nn.Module:
        if workers.count() == 1:
            return task
        return nn.parallel.DistributedDataParallel(task, device_ids=[device] if device.type == "cuda" else None)

    def say(text: str) -> None:
        ray.get(post.report.remote(text))

    beating = (post, workers.rank(), pulse, asked, over, min(BEAT, order.silence / 6))
    Thread(target=_beat, args=beating, daemon=True).start()
    fewest = ray.get(post.fewest.remote())
    if fewest is not None:
        order = order.model_copy(update={"micro_batch": fewest})
    try:
        work(order, device=device, report=report, stop=asked.is_set, wrap=wrap, say=say, pulse=pulse)
    except Fewer as error:
        ray.get(post.lessen.remote(error.micro_batch, str(error)))
        raise  # Ray ends the others, wherever they wait, and begins again with all
    except Paused:
        ray.get(post.pause.remote())
    except Stopped:
        return
    except Lost:
        raise  # another run has it; all workers begin again, and wait for that
    except Exception as error:
        if not of_others(error):
            ray.get(post.fail.remote(f"{type(error).__name__}: {error}"))
        raise
    finally:
        over.set()


def of_others(error: Exception) -> bool:
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
