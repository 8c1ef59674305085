"""Real workers of Ray's, of which one runs out of memory, or is killed, or that make way for another number."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import ray
import torch
import torch.distributed as dist
from ray.train import FailureConfig
from ray.train.torch import TorchTrainer
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from tests.faults.clusters import bare
from tests.trainers.stages import order, stage
from tests.trainers.test_cohort import assert_same
from tests.trainers.works import run
from trainers.backbones import TinyResNet
from trainers.lean import LEFT_OUT, Lean
from trainers.order import Order
from trainers.post import End, Post
from trainers.result import Result
from trainers.stage import Again, _worker, outcome, run_on_workers
from trainers.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PLAIN = stage(epochs=2, fixed_norm=True)


def narrow(config: dict[str, Any]) -> None:
    """What each worker does, of which the first of two has memory for two images, and the others have more."""

    def refuse(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        first = dist.is_initialized() and dist.get_rank() == 0
        if isinstance(module, TinyResNet) and module.training and first and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError(f"no room for {len(inputs[0])} images")

    with register_module_forward_pre_hook(refuse):
        _worker(config)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for `narrow`
        bare(patch)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def halved(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, Any]]]:
    """Two workers of which the first has memory for two images: their store, and all that they say."""
    folder = tmp_path_factory.mktemp("halved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.stage._worker", narrow)
        return folder, on_two_workers(order(PLAIN, folder))


def test_all_workers_begin_again_with_half_as_many_images_where_one_has_no_memory(
    halved: tuple[Path, list[tuple[str, Any]]], tmp_path: Path
) -> None:
    folder, news = halved
    whole = run(PLAIN, tmp_path)
    result = Store(folder).get(PLAIN)
    (said,) = (one for _, one in news if isinstance(one, str))
    assert news[-1] == (PLAIN.key, End("done")) and result is not None
    assert said.startswith("out of memory in epoch 1, step 1 with 4 images at once; from now on 2 at once for each")
    assert result.usage is not None and result.usage.workers == 2
    assert result.score == pytest.approx(whole.score, abs=0.003)
    ours, theirs = (Store(place).weights(one) for place, one in ((tmp_path, whole), (folder, result)))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_one_of_two_stages_on_the_same_workers_fails_and_the_other_is_as_if_trained_alone(
    halved: tuple[Path, list[tuple[str, Any]]], tmp_path: Path
) -> None:
    fails = stage(epochs=2, fixed_norm=True, lr=1e30)
    news = on_two_workers(*(order(one, tmp_path, micro_batch=2) for one in (fails, PLAIN)))
    ends = {key: one for key, one in news if isinstance(one, End)}
    assert ends[PLAIN.key] == End("done")
    assert ends[fails.key].how == "failed" and ends[fails.key].reason.startswith("NonFinite: ")
    assert_same(halved[0], tmp_path, [PLAIN])


def test_no_process_is_started_for_datasets_of_rays_own_nor_to_clean_up_after_a_controller() -> None:
    theirs, ours = (
        [type(one).__name__ for one in kind(_worker)._create_default_callbacks()] for kind in (TorchTrainer, Lean)
    )
    assert ours == [name for name in theirs if name not in LEFT_OUT] and len(ours) == len(theirs) - len(LEFT_OUT)


@pytest.mark.usefixtures("cluster")
def test_workers_whose_labels_no_node_has_find_no_room(tmp_path: Path) -> None:
    post: Any = Post.remote([PLAIN.key])
    with pytest.raises(Again, match="late"):
        run_on_workers(
            [order(PLAIN, tmp_path)], num_workers=2, threads=1, demand={"CPU": 0.5}, labels={"disk": "ssd"}, post=post
        )
    assert not list(tmp_path.glob("*/result.json"))


@pytest.mark.usefixtures("cluster")
def test_workers_may_die_as_often_as_they_like_if_they_come_further_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray, which counts all deaths of a training, is told to bear with none."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "120")  # a busy machine may be late with workers
    none = FailureConfig(max_failures=0, controller_failure_limit=0)
    monkeypatch.setattr("trainers.stage.FailureConfig", lambda **limits: none)
    long = stage(epochs=6, fixed_norm=True)
    folder = tmp_path / "two" / long.key

    def kill() -> None:
        until(lambda: any(int(file.name.split("-")[1]) >= 2 for file in folder.glob("state-*.pt")))
        (lease,) = folder.glob("lease-*")
        os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    news = on_two_workers(order(long, tmp_path / "two"))
    killing.join()
    assert [one for _, one in news if isinstance(one, str)] == [ANY] and news[-1] == (long.key, End("done"))
    result = Store(tmp_path / "two").get(long)
    assert result is not None and [entry["epoch"] for entry in result.history] == list(range(1, 7))


def on_two_workers(*orders: Order) -> list[tuple[str, Any]]:
    """All that two workers say who train these stages together."""
    post: Any = Post.remote([one.stage.key for one in orders])
    run_on_workers(orders, num_workers=2, threads=1, demand={"CPU": 0.5}, labels={}, post=post)
    return list(ray.get(post.take.remote()))


def until(condition: Callable[[], Any]) -> Any:
    late = time.monotonic() + 300
    while not (found := condition()):
        assert time.monotonic() < late, "nothing came"
        time.sleep(0.01)
    return found


def elastic(order: Order, num_workers: int, disturb: Callable[[Any], None]) -> Result | str:
    """The result of workers whose number may change, or why they end before; `disturb` has their post meanwhile."""
    post: Any = Post.remote([order.stage.key])
    found: list[str] = []

    def train() -> None:
        try:
            run_on_workers(
                [order], num_workers=num_workers, threads=1, demand={"CPU": 0.5}, labels={}, post=post, fixed=False
            )
        except Again as again:
            found.append(again.why)

    thread = threading.Thread(target=train)
    thread.start()
    disturb(post)
    thread.join()
    if found:
        return found[0]
    how = outcome(order, next(one for _, one in ray.get(post.take.remote()) if isinstance(one, End)))
    if isinstance(how, Again):
        return how.why
    assert isinstance(how, Result), how
    return how


@pytest.mark.usefixtures("cluster")
def test_workers_whose_number_may_change_end_when_one_is_killed_or_when_asked_and_another_number_goes_on(
    tmp_path: Path,
) -> None:
    """The first runs out of memory too, which is not for others to see to."""
    long = stage(epochs=12, fixed_norm=True)
    whole, one = run(long, tmp_path / "one"), order(long, tmp_path / "two")
    folder = Path(one.store) / long.key

    def epochs(count: int) -> Callable[[], bool]:
        return lambda: any(int(file.name.split("-")[1]) >= count for file in folder.glob("state-*.pt"))

    def killed(post: Any) -> None:
        until(epochs(2))
        (lease,) = folder.glob("lease-*")
        os.kill(json.loads(lease.read_text())["pid"], signal.SIGKILL)

    def released(post: Any) -> None:
        ray.get(post.release.remote())

    assert elastic(one, 2, killed) == "lost"
    reached = max(int(file.name.split("-")[1]) for file in folder.glob("state-*.pt"))
    assert elastic(one, 2, released) == "released"
    tries = (elastic(one, 1, lambda post: None) for _ in range(3))  # a busy machine may be late with a worker
    result = next(one for one in tries if isinstance(one, Result))
    assert isinstance(result, Result) and result.usage is not None and result.usage.workers == 1
    assert [entry["epoch"] for entry in result.history] == list(range(1, 13)) and reached >= 2
    assert result.score == pytest.approx(whole.score, abs=0.003)
    ours, theirs = (Store(tmp_path / name).weights(one) for name, one in (("one", whole), ("two", result)))
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-2, atol=1e-4, msg=name)
