"""A process of Ray Tune that dies at any moment is replaced, and its stage is neither lost nor trained for ever."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path as File
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from orchestrator import cluster
from orchestrator.resources import Placement
from orchestrator.searcher import RETRIES

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def fragile() -> type[tune.Trainable]:
    """A trainable made here, so that it goes to its process by value: the tests are not installed there."""

    class Fragile(tune.Trainable):
        """Finishes at its first step, after it died as often as the stage's order says, where the order says."""

        def setup(self, config: dict[str, Any]) -> None:
            (self.order,), self.steps = config["orders"], 0

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            (self.order,) = new_config["orders"]
            self.perhaps("between")
            return True

        def step(self) -> dict[str, Any]:
            self.perhaps("training")
            self.steps += 1
            key = self.order.split("|")[1]
            if self.steps == 1:
                return {"key": key, "said": "an image is bad"}
            end = {"score": 1.0, "left": False, "failed": "", "paused": False, "again": ""}
            return {"done": True, "ended": True, "key": key, **end}

        def save_checkpoint(self, checkpoint_dir: str) -> None: ...

        def load_checkpoint(self, checkpoint: Any) -> None: ...

        def perhaps(self, moment: str) -> None:
            folder, name, where, times = self.order.split("|")
            deaths = File(folder, name)
            so_far = int(deaths.read_text()) if deaths.exists() else 0
            if where == moment and so_far < int(times):
                deaths.write_text(str(so_far + 1))
                os._exit(1)

    return Fragile


class Told:
    """The run behind the searcher: stages one after another, and what it was told of them."""

    def __init__(self, keys: list[str]) -> None:
        self.waiting, self.done, self.failures = list(keys), [], {}
        self.heard: list[tuple[str, str]] = []
        self.deaths: list[tuple[str, str]] = []
        self.total, self.stopping, self.running = len(keys), threading.Event(), 0

    @property
    def over(self) -> bool:
        return len(self.done) + len(self.failures) == self.total

    def next(self) -> list[Any]:
        if not self.waiting or self.running:
            return []
        self.running += 1
        return [SimpleNamespace(key=self.waiting.pop(0))]

    def look(self) -> None: ...

    def again(self, key: str, why: str) -> bool:
        return False

    def started(self, key: str) -> None: ...

    def epoch(self, key: str, entry: dict[str, float]) -> None: ...

    def said(self, key: str, text: str) -> None:
        self.heard.append((key, text))

    def died(self, key: str, why: str) -> None:
        self.deaths.append((key, why))

    def finished(self, key: str) -> None:
        self.running -= 1
        self.done.append(key)

    def failed(self, key: str, reason: str, traceback: str) -> None:
        self.running -= 1
        self.failures[key] = reason


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Four stages in turn: whole; dead between two stages; dead while it trains; dead whenever it trains."""
    folder = tmp_path_factory.mktemp("fragile")
    orders = {"whole": "never|0", "between": "between|1", "training": "training|2", "hopeless": "training|99"}
    run = Told(list(orders))

    def configure(stages: Sequence[Any]) -> dict[str, Any]:
        own = [f"{folder}|{stage.key}|{orders[stage.key]}" for stage in stages]
        return {"orders": own, "placement": Placement().model_dump_json()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "Trial", fragile())
        with cluster.connected("local"):
            cluster.tune_all(run, configure, folder=str(folder / "tune"))
    return run


def test_a_stage_whose_process_died_is_trained_by_another(told: Told) -> None:
    assert told.done == ["whole", "between", "training"]


def test_every_death_is_told(told: Told) -> None:
    assert Counter(told.deaths) == {("between", "died"): 1, ("training", "died"): 2, ("hopeless", "died"): RETRIES}


def test_what_a_stage_has_to_say_is_heard_under_its_key(told: Told) -> None:
    assert ("whole", "an image is bad") in told.heard and {key for key, _ in told.heard} <= {*told.done, "hopeless"}


def test_a_stage_that_kills_every_process_fails(told: Told) -> None:
    assert told.failures == {"hopeless": f"its process died {RETRIES + 1} times"}


@pytest.mark.parametrize(
    ("slow", "address", "starts"), [(1, "local", 2), (3, "local", 4), (4, "local", 4), (1, "192.0.2.1:6379", 1)]
)
def test_ray_is_started_again_where_its_own_node_took_too_long(
    monkeypatch: pytest.MonkeyPatch, slow: int, address: str, starts: int
) -> None:
    begun: list[str] = []

    def init(*, address: str, **words: Any) -> None:
        begun.append(address)
        if len(begun) <= slow:
            raise Exception(f"The current node {cluster.SLOW}.")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    with nullcontext() if slow < starts else pytest.raises(Exception, match=cluster.SLOW):
        cluster._join(address, {})
    assert begun == [address] * starts
