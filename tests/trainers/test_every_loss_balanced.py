"""Every loss can have its alpha found, and then trains with it."""

import copy

import pytest
import torch

from tests.trainers.detectors.scenes import noise
from tests.trainers.test_every_loss import CASES, EVERY, WIDER, Kind, Pair
from trainers import distill
from trainers.balance import Balance, gradients
from trainers.call import offers
from trainers.reach import check
from trainers.task import Lesson, Task

OFF = torch.amp.grad_scaler.GradScaler(enabled=False)


def test_no_loss_is_forgotten() -> None:
    assert {name for name, _ in CASES} == set(offers(distill))


@EVERY
def test_it_is_looked_at_in_one_step_and_balanced_in_the_next(name: str, on: Kind) -> None:
    pair = Pair(name, on, channels=24 if WIDER[name] == "adapters" else 16)
    task = Task(pair.student, {"it": pair.loss}).train()
    images, truth = noise((64, 64), (40, 50), padded=(64, 64))
    with torch.no_grad():
        lesson = Lesson([pair.teacher(images)])
    balanced = Balance({"it": 0.5}, {"it": 1})
    optimizer = torch.optim.SGD(task.parameters(), lr=1e-4)

    def losses(said: Lesson | None) -> tuple[float, float, float]:
        """A step; -> what the loss counts, and the norms of its gradient and detection's at the features."""
        torch.manual_seed(1)  # for what is drawn
        found = task(images, truth, said)
        unchecked = {"it": 0}
        check(task, found, unchecked, OFF)
        assert not unchecked
        balanced.look(found, OFF)
        optimizer.zero_grad()
        norms = (0.0, 0.0)
        if found.looks:
            of = (found.looks.losses["it"], found.looks.detection)
            norms = tuple(torch.cat([g.flatten() for g in gradients(x, found.looks.features, OFF)]).norm() for x in of)
        found.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
        return found.by_name["it"].item(), *map(float, norms)

    before = copy.deepcopy(pair.loss.state_dict())
    counted, mine, detection = losses(balanced.applied(lesson))
    assert counted == 0 and balanced.alphas["it"] == pytest.approx(0.5 * detection / mine, rel=1e-4)
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in pair.loss.state_dict().items())
    counted, *_ = losses(balanced.applied(lesson))
    plain, *_ = losses(lesson)
    assert counted == pytest.approx(balanced.alphas["it"] * plain, rel=1e-4) and counted > 0
    optimizer.step()
    assert all(p.isfinite().all() for p in task.parameters())
