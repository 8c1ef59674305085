"""What the tests of the store put into it: two stages, a result and its weights, and states of a training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.trainers.stages import stage
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import WEIGHTS, Store

STAGE = stage()
OTHER = stage(seed=1)


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(50, generator=generator), "b.c": torch.arange(6).view(2, 3)}


def facts(score: float = 0.5) -> dict[str, Any]:
    history = [{"epoch": 1.0, "train/loss": 2.0}, {"epoch": 2.0, "train/loss": 1.0, "val/AP": score}]
    return {"score": score, "metrics": {"val/AP": score}, "history": history, "seconds": 3.0, "device": "cpu"}


def put(store: Store, of: Stage = STAGE, **changes: Any) -> Result:
    return store.put(of, weights(), **{**facts(), **changes})


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def state(n: int) -> dict[str, Any]:
    return {"epoch": n, "tensors": {"w": torch.full((100,), float(n))}, "history": [{"epoch": 1.0}], "none": None}


def epoch_of(found: dict[str, Any] | None) -> int | None:
    if found is None:
        return None
    assert torch.equal(found["tensors"]["w"], torch.full((100,), float(found["epoch"])))
    return int(found["epoch"])


def kept_state(store: Store, key: str, *, say: Callable[[str], object] = bool) -> dict[str, Any] | None:
    """Where a stage is to go on."""
    last = store.last_state(key, say=say)
    return last and last[1]


def weights_file(store: Store, key: str) -> Any:
    return store.place.file(f"{key}/{WEIGHTS}")
