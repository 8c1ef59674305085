"""The Tune trainable: trains one stage after another in a process that has torch loaded already.

An error in a stage is a result ("failed", with the reason), not an error of the trial: Tune retries what died, and
only a process can die. The process then takes the stage up where the store has it.
"""

from __future__ import annotations

import gc
import json
import queue
import threading
import traceback
from typing import Any, NamedTuple

import ray
import torch
from ray import tune

from orchestrator.resources import Placement
from trainers.loop import Paused, Stopped
from trainers.stage import Again, StageFailed, post_here, run_here, run_on_workers
from trainers.worker import Entry, Order

POLL_SECONDS = 0.2  # how often the workers of a stage are asked for news


class Finished(NamedTuple):
    """The end of a stage: its score, or why there is none."""

    score: float | None = None
    failed: str = ""
    traceback: str = ""
    paused: bool = False
    again: str = ""  # why it is to be handed out once more: as `Again` has it


class Trial(tune.Trainable):
    """One stage at a time; the thread beside it trains, so that every epoch can be handed on at once."""

    def setup(self, config: dict[str, Any]) -> None:
        self.stages = 0
        self._start(config)

    def _start(self, config: dict[str, Any]) -> None:
        self.news: queue.Queue[Entry | str | Finished] = queue.Queue()
        self.stages += 1
        self.stopping = threading.Event()
        self.post: Any = None
        order = Order.model_validate_json(config["order"])
        placement = Placement.model_validate_json(config["placement"])
        self.post_name = config.get("post")
        target = self._train_on_workers if placement.apart else self._train_here
        self.thread = threading.Thread(target=self._guard, args=(target, order, placement), daemon=True)
        self.thread.start()

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
        news = self.news.get()
        if isinstance(news, Finished):
            return {"done": True, **news._asdict()}
        if isinstance(news, str):
            return {"said": news}
        return {"entry": json.dumps(news)}  # a dictionary would be flattened at its slashes

    def cleanup(self) -> None:
        """End the stage at its next step, and wait until it has ended."""
        self.stopping.set()
        if self.post is not None:
            self.post.stop.remote()
        self.thread.join()
        self.post = None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the store has the state of every stage."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, for the same reason."""

    def _guard(self, train: Any, order: Order, placement: Placement) -> None:
        try:
            self.news.put(Finished(score=train(order, placement)))
        except Paused:
            self.news.put(Finished(paused=True))
        except Again as again:
            self.news.put(Finished(again=again.why))
        except Stopped:
            self.news.put(Finished(failed="stopped"))
        except StageFailed as error:
            self.news.put(Finished(failed=str(error), traceback=traceback.format_exc()))
        except Exception as error:
            self.news.put(Finished(failed=f"{type(error).__name__}: {error}", traceback=traceback.format_exc()))

    def _train_here(self, order: Order, placement: Placement) -> float:
        put = self.news.put
        return run_here(order, cpus=placement.cpus, report=put, stop=self.stopping.is_set, say=put).score

    def _train_on_workers(self, order: Order, placement: Placement) -> float:
        self.post = post = post_here(self.post_name)
        over = threading.Event()

        def relay() -> None:
            while not over.wait(POLL_SECONDS):
                for news in ray.get(post.take.remote()):
                    self.news.put(news)

        relaying = threading.Thread(target=relay, daemon=True)
        relaying.start()
        try:
            result = run_on_workers(
                order,
                num_workers=1 if order.stage.published else placement.workers,
                threads=max(1, int(placement.cpus)),
                demand=placement.demand,
                labels=placement.labels,
                post=post,
                fixed=placement.min_workers is None,
            )
        finally:
            over.set()
            relaying.join()
        return result.score
