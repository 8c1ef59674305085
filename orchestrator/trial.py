"""The Tune trainable: trains one stage after another, or several together, in a process that has torch loaded already.

An error in a stage is a result ("failed", with the reason), not an error of the trial: only a process can die. Another
then takes its stages up where the store has them.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
import torch
from ray import tune
from ray.exceptions import ActorDiedError, RayError

from orchestrator.audit import free
from orchestrator.ended import Finished, Unheard, finished
from orchestrator.one_thread import OneThread
from orchestrator.resources import Placement
from trainers.deaths import life
from trainers.loop import Stopped
from trainers.order import Order
from trainers.post import End, post_here
from trainers.pulse import Pulse
from trainers.result import Result
from trainers.scratch import clear
from trainers.stage import StageFailed, outcome, run_here, run_on_workers
from trainers.workplace import Entry, Workplace

POLL_SECONDS = 0.2  # how often the workers of a stage are asked for news
LOADING = 300.0  # seconds more than between two steps that workers may take to load everything and find one another
BEAT = 2.0  # seconds between two signs of life, if nothing else is to be said
GRACE = 24.0  # seconds for the last step of a stage whose process was told to go; Kubernetes, for one, gives 30
POSTLESS = "lost the post by which its workers are heard of, and was ended"
UNWATCHED = "lost the process that watches over its workers, and was ended"
HEARD = 5.0  # seconds for the driver to hear that it left and to end it; of a death it might hear first


def draining() -> set[str]:
    """The nodes that will be taken away, by Ray's ids: the notice of a preemption, or of whoever makes a cluster small.

    Ray Train asks Ray in this way, too; Ray has no public one.
    """
    try:
        return set(ray._private.state.state.get_draining_nodes())
    except Exception:  # whatever it is with a call that is not public, no stage should end for it
        return set()


class Trial(tune.Trainable):
    """Those stages at a time that it is given; the thread beside it trains, so that every epoch can be handed on at
    once."""

    def setup(self, config: dict[str, Any]) -> None:
        self.stages, self.going, self.ending, self.looked, self.thread = 0, False, False, 0.0, OneThread()
        self.node = ray.get_runtime_context().get_node_id()
        clear()
        self._start(config)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._terminated)

    def _start(self, config: dict[str, Any]) -> None:
        self.news: queue.Queue[tuple[str, Entry | str | Finished]] = queue.Queue()
        self.stages += 1
        self.stopping, self.leaving, self.gone = threading.Event(), threading.Event(), False
        self.over: threading.Event | None = None  # set when what was begun has ended
        self.post: Any = None
        self.pulse = Pulse()
        self.orders = [Order.model_validate_json(order) for order in config["orders"]]
        self.silence = self.orders[0].silence
        self.open = {order.stage.key for order in self.orders}  # whose end the driver has not been told
        self.training = set(self.open)  # that have not ended
        placement = Placement.model_validate_json(config["placement"])
        self.alone, self.post_name = not placement.apart, config.get("post")
        train = self._train_here if self.alone else self._train_on_workers
        self.work = partial(self._guard, train, placement)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        gc.collect()
        if self.stages == 1:
            # By now all libraries are loaded. Looking through them again after each stage would cost 0.2 s.
            gc.freeze()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self.ending:
            os._exit(1)  # the driver knows why, and has another process go on
        if self.going and self.over is None:  # told so between two stages
            self.ending = True
            return {"left": True}
        if self.over is None:  # not before: a driver that ends waits for those stages only of which it knows
            self.over = self.thread.do(self.work)
        if self.gone and not self.open:
            self.ending = self.over.wait(BEAT)  # what its workers hold would be given back by nobody before
            return {"left": True} if self.ending else {**self._sign_of_life(), "left": True}
        if self.alone and not self.leaving.is_set() and time.monotonic() - self.looked > BEAT:
            self.looked = time.monotonic()
            if self.node in draining():
                self.leave()
        try:
            key, news = self.news.get(timeout=BEAT)
        except queue.Empty:
            return self._sign_of_life()
        if isinstance(news, Finished):
            return self._ended(news)
        if isinstance(news, str):
            return {"key": key, "said": news}
        return {"key": key, "entry": json.dumps(news)}  # a dictionary would be flattened at its slashes

    def _ended(self, end: Finished) -> dict[str, Any]:
        self.open.discard(end.key)
        if end.lost:
            self.ending = True
            return {"hung": end.lost}
        if end.left and (self.alone or self.going or self.node in draining()):
            self.gone = True  # it was told to go, or its node goes; with the last of its stages it does
            return self._sign_of_life()
        return {"done": not self.open and not self.gone, "ended": True, **end._asdict()}

    def _sign_of_life(self) -> dict[str, Any]:
        if self.pulse.silent() > self.silence:
            self.ending = True
            return {"hung": f"made no step for {self.silence:g} s and was ended"}
        return {"life": life(self.node).model_dump_json()}

    def leave(self) -> None:
        """End the stage after the step that it is in, and have it gone on with by another process."""
        self.leaving.set()
        self.halt()

    def _terminated(self, number: int, frame: object) -> None:
        """SIGTERM: this process, or its node, is about to be killed."""
        threading.Thread(target=self._leave_and_end, daemon=True).start()

    def _leave_and_end(self) -> None:
        self.going = True
        self.leave()
        self._wait(GRACE)
        time.sleep(HEARD)
        os._exit(1)

    def halt(self) -> None:
        """End the stage after the step that it is in."""
        self.stopping.set()
        if self.post is not None:
            self.post.stop.remote()

    def cleanup(self) -> None:
        """End the stage at its next step, and wait until it has ended."""
        self.halt()
        self._wait()
        self.post = None

    def _wait(self, seconds: float | None = None) -> None:
        """For the end of the stage, if it has begun."""
        if self.over is not None:
            self.over.wait(seconds)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store has the state of every stage."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, for the same reason."""

    def _guard(self, train: Callable[[Placement], None], placement: Placement) -> None:
        try:
            train(placement)
        except ActorDiedError:
            self._unheard(UNWATCHED)
        except BaseException as error:  # the thread is needed for the next ones
            for key in list(self.training):
                self._end(key, error)

    def _end(self, key: str, how: Result | BaseException) -> None:
        """A stage has ended."""
        self.training.discard(key)
        self.news.put((key, finished(key, how, leaving=self.leaving.is_set())))

    def _train_here(self, placement: Placement) -> None:
        def workplace(order: Order, device: torch.device) -> Workplace:
            def put(news: Entry | str) -> None:
                self.news.put((order.stage.key, news))

            return Workplace(device, report=put, stop=self.stopping.is_set, say=put, pulse=self.pulse)

        run_here(self.orders, workplace, self._end, cpus=placement.cpus)

    def _train_on_workers(self, placement: Placement) -> None:
        self.post, over = post_here(self.post_name, [order.stage.key for order in self.orders]), threading.Event()
        watching = threading.Thread(target=self._watch_workers, args=(self.post, over), daemon=True)
        watching.start()
        free()
        try:
            run_on_workers(
                self.orders,
                num_workers=1 if self.orders[0].stage.published else placement.workers,
                threads=max(1, int(placement.cpus)),
                demand=placement.demand,
                labels=placement.labels,
                post=self.post,
                fixed=placement.min_workers is None,
            )
        finally:
            over.set()
            watching.join()
            free()
        # What they have said cannot be read where the store is away; who is told to leave does not wait for it.
        silent = Stopped() if self.stopping.is_set() else StageFailed("its workers ended and said nothing of it")
        for key in list(self.training):
            self._end(key, silent)

    def _watch_workers(self, post: Any, over: threading.Event) -> None:
        """Hand on what the workers of a stage tell; end those that hang, and have all leave a node that goes."""
        looked, unread = time.monotonic(), list[tuple[str, Entry | str | End]]()
        while True:
            ended = over.wait(POLL_SECONDS)
            try:
                unread += ray.get(post.take.remote())
                unread = [(key, news) for key, news in unread if not self._hand_on(key, news)]
                if not ended and time.monotonic() - looked > min(BEAT, self.silence / 6):
                    looked = time.monotonic()
                    self._look_at_workers(post)
            except ActorDiedError:  # the workers stop when they hear of it, and end with this process
                self._unheard(POSTLESS)
                return
            except RayError:  # the next round may go well
                pass
            if ended and (not unread or self.stopping.is_set()):
                return
            if ended:
                time.sleep(POLL_SECONDS)

    def _hand_on(self, key: str, news: Entry | str | End) -> bool:
        """-> False if the store is away that has what is to be handed on."""
        if not isinstance(news, End):
            self.news.put((key, news))
            return True
        (order,) = (order for order in self.orders if order.stage.key == key)
        try:
            how = outcome(order, news)
        except OSError:
            return False
        except Exception as error:
            how = error
        self._end(key, how)
        return True

    def _look_at_workers(self, post: Any) -> None:
        for rank, actor in ray.get(post.late.remote(self.silence)).items():
            said = f"worker {rank} gave no sign of life, or made no step, for {self.silence:g} s: ended"
            self.news.put((self.orders[0].stage.key, said))
            ray.kill(actor)
        there = ray.get(post.nodes.remote())
        if not there:  # they begin, and may wait for what others hold of whom Ray hears late that they are dead
            free()
            if (silent := ray.get(post.unheard.remote())) > self.silence + LOADING:
                self._unheard(f"heard nothing of its workers for {silent:.0f} s, and was ended")
        if not self.leaving.is_set() and (there | {self.node}) & draining():
            self.leave()

    def _unheard(self, why: str) -> None:
        for key in list(self.training):
            self._end(key, Unheard(why))
