"""Stages as they come to MLflow, and what a database has of them, for the tests of tracking."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.board import Row
from orchestrator.connection import connect
from orchestrator.lattice import Path
from orchestrator.ranking import Found, paths
from orchestrator.tracking import Tracking
from trainers.call import Call
from trainers.spec import Data, Model, Recipe, Stage

DEPTHS = {"r101": 101, "r34": 34, "r18": 18}


def stage(path: str, seed: int = 0, epochs: int = 3, weight: float = 0.25) -> Stage:
    """The last stage of a path such as `r101 > r18`."""
    *above, name = path.split(" > ")
    return Stage(
        model=Model(detector=Call(name="GFL"), backbone=Call(name="ResNet", args={"depth": DEPTHS[name]})),
        data=Data(fingerprint="abc", classes=("cat", "dog")),
        recipe=Recipe(epochs=epochs),
        distill=(Call(name="LD", args={"weight": weight, "temperature": 10.0}),) if above else (),
        seed=seed,
        teacher=stage(" > ".join(above), seed, epochs, weight) if above else None,
    )


def row(path: str = "r101 > r18", role: str = "student", score: float = 0.5, done: int = 3, **facts: Any) -> Row:
    """A stage that has trained for `done` of its three epochs."""
    state = facts.pop("state", "done")
    own = {key: facts.pop(key) for key in ("seed", "epochs", "weight") if key in facts}
    history = facts.pop("history", None) or [
        {"epoch": float(i), "seconds": 10.0 * i, "val/AP": score * i / max(done, 1), "train/loss_ld": 1.0 / i}
        for i in range(1, done + 1)
    ]
    return Row(
        stage(path, **own),
        Path(tuple(path.split(" > "))),
        own.get("seed", 0),
        role,
        state=state,
        score=history[-1]["val/AP"] if history else None,
        history=history,
        seconds=10.0 * done,
        **{"weights": "s3://bucket/weights", "sha256": "f" * 64, **facts},
    )


def begin(uri: str, name: str = "demo", *, metric: str = "", **parameters: str) -> Tracking:
    """`parameters`: of the study; `data_fingerprint` is written data.fingerprint."""
    opened = Tracking(uri, name)
    opened._background.first = 0.01
    said = {key.replace("_", "."): value for key, value in parameters.items()}
    opened.start({"epochs": 3, **said}, {"study": name, **({"metric": metric} if metric else {})})
    return opened


def settle(tracking: Tracking, *rows: Row) -> None:
    """Write these one after another, none in place of another."""
    for each in rows:
        tracking.update(each)
        assert tracking._background.wait(60)


def runs(uri: str) -> dict[str, Any]:
    """The runs by name; no name twice."""
    client = connect(uri)
    found = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found)
    return named


def run_of(uri: str, wanted: Row) -> Any:
    return next(run for run in runs(uri).values() if run.data.tags.get("key") == wanted.key)


def models(uri: str) -> list[Any]:
    client = connect(uri)
    return list(client.search_logged_models([client.get_experiment_by_name("demo").experiment_id]))


def best(uri: str, name: str = "demo", **asked: Any) -> Found:
    """The first path of an experiment that has a finite score."""
    return next(found for found in paths(uri, [name], **asked) if math.isfinite(found.score))


def steps(uri: str, wanted: Row, name: str) -> list[tuple[int, float]]:
    history = connect(uri).get_metric_history(run_of(uri, wanted).info.run_id, name)
    return [(metric.step, metric.value) for metric in history]


def fail(monkeypatch: pytest.MonkeyPatch, tracking: Tracking, name: str, *, times: int, after: bool) -> list[str]:
    """Let a method of the client raise so many times, before or after it has done its work."""
    real, failures = getattr(tracking.client, name), []

    def flaky(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs) if after or len(failures) == times else None
        if len(failures) < times:
            failures.append(name)
            raise ConnectionError("http://me:secret@server does not answer")
        return result

    monkeypatch.setattr(tracking.client, name, flaky)
    return failures
