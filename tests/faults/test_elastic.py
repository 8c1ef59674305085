"""A stage with as many workers as there is room for, while nodes come and go: a real cluster of several raylets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.faults.clusters import cluster
from tests.orchestrator import studies
from tests.orchestrator.studies import changed, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 30
# The teacher takes the time that it needs for nodes to come and go, and for a second worker to be worth its start, on
# a machine that has nothing else to do, too; what comes after it is short.
TEXT = changed(
    ("train: 32", "train: 256"),
    ("epochs: 2, batch: 8, optimizer: AdamW, lr: 0.008", "epochs: 1, batch: 8, optimizer: SGD, lr: 0.02"),
    ("big: {detector", f"big: {{recipe: {{epochs: {EPOCHS}}}, detector"),
    ("controls: [alone]\n", "controls: []\n"),
    text=without("mid", "low"),
)
PLACED = changed(("big: {", "big: {resources: {workers: 2, min_workers: 1, cpus: 0.5, custom: {seat: 1}}, "), text=TEXT)


@dataclass
class Seen:
    """What a run left that was disturbed."""

    folder: File
    text: str


def seat(nodes: Cluster) -> Any:
    """A node with room for one worker."""
    return nodes.add_node(num_cpus=1, resources={"seat": 1})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> File:
    folder = tmp_path_factory.mktemp("undisturbed")
    write(folder, TEXT)
    ran = tapath(folder, "run", "tiny.yaml")
    assert ran.code == 0, ran.err
    return folder


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """One worker, then two, then none as both nodes go, then one."""
    folder = tmp_path_factory.mktemp("disturbed")
    write(folder, PLACED)
    # Its processor is for what runs beside workers; workers need a seat.
    with cluster(head=1) as nodes:
        first = seat(nodes)
        nodes.wait_for_nodes()
        with underway(folder, "run", "tiny.yaml", "--address", nodes.address) as command:

            def reached(epoch: int) -> bool:
                return any(int(file.stem.split("-")[1]) >= epoch for file in (folder / "store").glob("*/state-*.pt"))

            def two_trained() -> bool:
                since = command.text.partition("2 of 2 workers, from epoch ")[2].partition(" ")[0]
                return bool(since) and reached(int(since) + 1)

            command.until(lambda: reached(2))
            second = seat(nodes)
            command.until(two_trained)
            nodes.remove_node(first, allow_graceful=False)
            nodes.remove_node(second, allow_graceful=False)
            trained = command.text.count("1 of 2 workers")
            seat(nodes)
            command.until(lambda: command.text.count("1 of 2 workers") > trained)
            assert command.end(300) == 0, command.text
            yield Seen(folder, command.text)


def teacher(folder: File) -> dict[str, Any]:
    results = [json.loads(file.read_text()) for file in (folder / "store").glob("*/result.json")]
    (found,) = (result for result in results if result["stage"]["teacher"] is None)
    return dict(found)


def starts(seen: Seen) -> list[tuple[int, int]]:
    """With how many workers the stage began, and with which epoch, each time."""
    lines = re.findall(r"big \(seed 0\): (\d) of 2 workers(?:, from epoch (\d+) on)?$", seen.text, re.MULTILINE)
    return [(int(count), int(epoch or 1)) for count, epoch in lines]


def test_a_stage_has_more_workers_when_a_node_comes_and_fewer_when_nodes_go(disturbed: Seen) -> None:
    counts, epochs = zip(*starts(disturbed), strict=True)
    assert counts[:2] == (1, 2) and counts[-1] == 1
    assert epochs[0] == 1 < epochs[1] < epochs[-1] and list(epochs) == sorted(epochs), "it went on from its last epoch"


def test_it_learns_what_it_would_have_learnt_undisturbed(disturbed: Seen, undisturbed: File) -> None:
    assert studies.stored(disturbed.folder).keys() == studies.stored(undisturbed).keys()
    theirs, ours = teacher(undisturbed), teacher(disturbed.folder)
    assert [entry["epoch"] for entry in ours["history"]] == list(range(1, EPOCHS + 1)), "no epoch was trained twice"
    _, (_, first), *_ = starts(disturbed)
    for here, there in zip(ours["history"], theirs["history"], strict=True):
        assert here["train/lr"] == there["train/lr"]
        if here["epoch"] < first:
            assert here["train/loss"] == there["train/loss"]
        if here["epoch"] == first:  # the same batches, summed in another order; from here on that adds up
            assert here["train/loss"] == pytest.approx(there["train/loss"], rel=1e-4)
        assert here["train/loss"] == pytest.approx(there["train/loss"], rel=0.2)
    assert ours["usage"]["workers"] == 1
    assert ours["score"] == pytest.approx(theirs["score"], abs=0.05) and theirs["score"] > 0.4
