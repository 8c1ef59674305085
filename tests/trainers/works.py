"""A root and a stage that it teaches, run as a worker runs them, and what may interrupt them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.trainers.stages import CPU, order, stage
from trainers.result import Result
from trainers.spec import Stage
from trainers.worker import work
from trainers.workplace import Entry

ROOT = stage(seed=7, epochs=1)
TAUGHT = stage({"LD": {"weight": 2}}, "KD", teacher=ROOT, epochs=3, optimizer="AdamW", lr=0.003, ema=0.5)


class Crash(BaseException):
    """As sudden as a kill."""


def run(one: Stage, folder: Path, **facts: Any) -> Result:
    hooks = {name: facts.pop(name) for name in ("report", "stop", "wrap", "say") if name in facts}
    return work(order(one, folder, **facts), device=CPU, **hooks)


def untimed(history: list[Entry]) -> list[Entry]:
    return [{name: value for name, value in entry.items() if "second" not in name} for entry in history]


def names(folder: Path, one: Stage) -> list[str]:
    return sorted(path.name for path in (folder / one.key).iterdir())


def crash(*_: Any, **__: Any) -> Any:
    raise Crash


def raising_at(epoch: int, error: BaseException) -> Callable[[Entry], None]:
    def report(entry: Entry) -> None:
        if entry["epoch"] == epoch:
            raise error

    return report
