"""On a GPU what is compiled is recorded and replayed, and trains as what is not: alone, with siblings, in pieces."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.trainers.stages import order, stage
from tests.trainers.works import ROOT
from trainers.cohort import train_together
from trainers.result import Result
from trainers.spec import Stage
from trainers.store import Store
from trainers.worker import work
from trainers.workplace import Workplace

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

EPOCHS = 4  # of four steps: compiled in the fourth, recorded in the two that follow
SIBLINGS = [
    stage({"LD": {}}, teacher=ROOT, epochs=EPOCHS),
    stage({"LD": {"temperature": 2}}, "KD", teacher=ROOT, epochs=EPOCHS, ema=0.5),
    stage("PKD", teacher=ROOT, epochs=EPOCHS, lr=0.01),
    stage({"LD": {}, "alpha": "auto"}, teacher=ROOT, epochs=EPOCHS, optimizer="AdamW", lr=0.003, clip=1.0),
]


def device() -> torch.device:
    return torch.device("cuda")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the teacher."""
    folder = tmp_path_factory.mktemp("root")
    work(order(ROOT, folder), device=device())
    return folder


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Without it convolutions would round their factors, and two ways of summing up would drift apart."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def learnt(stages: list[Stage], root: Path, folder: Path, **facts: Any) -> list[Result]:
    """What comes of stages that are trained together."""
    shutil.copytree(root, folder)
    ended: dict[str, Result | BaseException] = {}
    orders = [order(one, folder, **facts) for one in stages]
    train_together(orders, [Workplace(device()) for _ in stages], lambda key, how: ended.update({key: how}))
    for how in ended.values():
        if isinstance(how, BaseException):
            raise how
    return [found for one in stages if (found := Store(folder).get(one)) is not None]


def check_alike(found: list[Result], expected: list[Result]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for mine, theirs in zip(one.history, other.history, strict=True):
            losses = {name for name in mine if "loss" in name}
            assert {name: mine[name] for name in losses} == pytest.approx(
                {name: theirs[name] for name in losses}, rel=5e-3
            )


@pytest.mark.parametrize("facts", [{}, {"micro_batch": 4}], ids=["whole", "in pieces"])
def test_siblings_that_are_recorded_learn_what_each_learns_alone(
    root: Path, tmp_path: Path, facts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    plain = [learnt([one], root, tmp_path / f"plain {number}", **facts)[0] for number, one in enumerate(SIBLINGS)]
    counters.clear()
    fast = [
        learnt([one], root, tmp_path / f"alone {number}", compile=True, **facts)[0]
        for number, one in enumerate(SIBLINGS)
    ]
    check_alike(fast, plain)
    check_alike(learnt(SIBLINGS, root, tmp_path / "together", compile=True, **facts), plain)
    skipped = {name: times for name, times in counters["inductor"].items() if "cudagraph_skips" in name}
    assert not skipped and "CUDAGraphs" not in caplog.text
