"""Run a stage as a Ray Train `TorchTrainer`: in this process, or with several workers. The only Ray in this package."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import Any, NamedTuple

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn

from trainers import workers
from trainers.deaths import why
from trainers.lease import Lost
from trainers.loop import Paused, Stopped
from trainers.memory import Fewer
from trainers.pulse import Pulse
from trainers.scratch import scratch
from trainers.store import Result, Store
from trainers.worker import Entry, Order, work

log = logging.getLogger(__name__)


def run_here(
    order: Order,
    *,
    cpus: float,
    report: Callable[[Entry], None],
    stop: Callable[[], bool],
    say: Callable[[str], None] = log.warning,
    pulse: Pulse | None = None,
) -> Result:
    """Train a stage in this process, by TorchTrainer's local mode: no other process has to load torch for it."""

    def loop() -> Result:
        torch.set_num_threads(max(1, int(cpus)))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return work(order, device=device, report=report, stop=stop, say=say, pulse=pulse)

    result: Result = TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit().return_value
    return result


class Beat(NamedTuple):
    """A worker's sign of life."""

    actor: Any  # that it is, to end it by
    node: str  # on which it is
    silent: float  # seconds since its last step, where another is to be expected
    heard: float = 0.0  # when


class Letters:
    """Between a stage's workers and its trial: epochs and what the user should know one way, the wish to stop the
    other."""

    def __init__(self) -> None:
        self.news: list[Entry | str] = []
        self.stopping = False
        self.pausing = False
        self.failure: str | None = None
        self.micro_batch: int | None = None  # what memory was enough for
        self.beats: dict[int, Beat] = {}  # by rank, the last of each worker

    def report(self, news: Entry | str) -> None:
        self.news.append(news)

    def forget(self) -> None:
        """The workers are replaced by others."""
        self.beats.clear()

    def take(self) -> list[Entry | str]:
        taken, self.news = self.news, []
        return taken

    def stop(self) -> None:
        self.stopping = True

    def stopped(self) -> bool:
        return self.stopping

    def beat(self, rank: int, beat: Beat) -> bool:
        """A worker lives; -> whether it is to stop."""
        self.beats[rank] = beat._replace(heard=time.monotonic())
        return self.stopping

    def nodes(self) -> set[str]:
        return {beat.node for beat in self.beats.values()}

    def late(self, patience: float) -> dict[int, Any]:
        """The workers by rank that have given no sign of life for so many seconds; or, if all do, those that have made
        no step for so long. Each is named once."""
        now = time.monotonic()
        hung = {rank for rank, beat in self.beats.items() if beat.silent > patience}
        # Where some hang, it may be because they wait for another, of which nothing is heard since a little less long.
        limit = patience / 2 if hung else patience
        late = {rank for rank, beat in self.beats.items() if now - beat.heard > limit} or hung
        return {rank: self.beats.pop(rank).actor for rank in late}

    def pause(self) -> None:
        self.pausing = True

    def paused(self) -> bool:
        return self.pausing

    def lessen(self, micro_batch: int, text: str) -> None:
        """Have the stage begin again with fewer images at once; several workers may say so at the same time."""
        if self.micro_batch is None or micro_batch < self.micro_batch:
            self.micro_batch = micro_batch
            self.news.append(text)

    def fewest(self) -> int | None:
        return self.micro_batch

    def fail(self, reason: str) -> None:
        self.failure = self.failure or reason

    def failed(self) -> str | None:
        return self.failure


Post: Any = ray.remote(num_cpus=0)(Letters)


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
        for rank, error in worker_exceptions.items():
            cause = getattr(error, "health_check_failure", error)
            if isinstance(cause, RayActorError | OutOfMemoryError):
                said = f"worker {rank} of {self.count} {why(str(cause), None)}; all go on from the last epoch"
                self.post.report.remote(said)


class StageFailed(RuntimeError):
    """A worker of the stage failed in a way that trying again does not mend."""


def run_on_workers(
    order: Order,
    *,
    num_workers: int,
    threads: int,
    demand: Mapping[str, float],
    labels: Mapping[str, str],
    post: Any,
    tries: int = 3,
) -> Result:
    """Train a stage with data-parallel workers, each of so many threads. A worker that dies is replaced and the stage
    goes on from its last epoch, at most `tries` times, and so it does with half the images at once where memory runs
    out; an error in the training itself is final and raised as `StageFailed`. `demand`: what a worker asks of its node,
    under Ray's names; `labels`: what the node must have."""
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
                failure_config=FailureConfig(max_failures=tries + order.stage.recipe.batch.bit_length()),
                callbacks=[Deaths(post, num_workers)],
            ),
        )
        trainer.fit()
    failure = ray.get(post.failed.remote())
    if failure is not None:
        raise StageFailed(failure)
    if ray.get(post.paused.remote()):
        raise Paused
    if ray.get(post.stopped.remote()):
        raise Stopped
    result = Store(order.store).get(order.stage)
    assert result is not None, "the workers ended well"
    return result


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
            stopping += ray.get(post.stopped.remote())
        if workers.mean(stopping).item() > 0:
            raise Stopped
        ray.train.report(entry)

    order, pulse, asked, over = Order.model_validate_json(config["order"]), Pulse(), Event(), Event()
    if workers.rank() == 0:
        ray.get(post.report.remote({"epoch": 0.0}))  # all workers are here: from now on it trains

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
