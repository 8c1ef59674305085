"""Nodes that come and go while a study runs: a real cluster of several raylets on one machine."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.faults.clusters import cluster, drain, kill, trained
from tests.orchestrator import studies
from tests.orchestrator.heads import TOKEN
from tests.orchestrator.studies import changed, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TEXT = without("mid")
RUN = ("run", "tiny.yaml", "--set", "recipe.epochs=4")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head on which nothing is trained; the tests, one after another, add nodes until there are two."""
    with cluster(token=TOKEN) as made:
        yield made


SHORT = "big waits: needs 2 worker(s) with 1 CPU each; free are 1 of 1 CPU on 1 node(s), room for 1 worker(s)"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> File:
    folder = tmp_path_factory.mktemp("undisturbed")
    write(folder, TEXT)
    ran = tapath(folder, *RUN)
    assert ran.code == 0, ran.err
    return folder


def have(nodes: Cluster, count: int) -> list[Any]:
    """-> so many nodes beside the head, those that are missing added to those that earlier tests left."""
    while len(nodes.worker_nodes) < count:
        nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    return list(nodes.worker_nodes)


def further(command: studies.Underway, folder: File) -> None:
    """Wait until another epoch is over."""
    have = set((folder / "store").glob("*/state-*.pt"))
    command.until(lambda: set((folder / "store").glob("*/state-*.pt")) - have)


def begun(folder: File) -> Callable[[], bool]:
    return lambda: bool(list((folder / "store").glob("*/state-*.pt")))


@dataclass
class Moved:
    """A run to which a node came while its first stage was trained, and whose first node then died with that stage."""

    folder: File
    at_once: int  # how many processes trained when there were two nodes
    before: dict[str, tuple[int, int]]  # what was finished when the node died


@pytest.fixture(scope="module")
def moved(nodes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    folder = tmp_path_factory.mktemp("moved")
    write(folder, TEXT)
    (first,) = have(nodes, 1)
    each_alone = ("--set", "resources.cohort=1")
    with underway(folder, *RUN, *each_alone, "--address", nodes.address) as command:
        command.until(begun(folder))
        held = trained()
        os.kill(held, signal.SIGSTOP)  # its stage is not over before a process on another node has loaded everything
        nodes.add_node(num_cpus=1)
        command.until(lambda: len(training(folder)) == 2)
        at_once = len(training(folder))
        command.until(lambda: len(studies.stored(folder)) > 0)
        before = studies.written(folder)
        nodes.remove_node(first, allow_graceful=False)
        with suppress(ProcessLookupError):  # it is no more without those above it
            kill(held)
        assert command.end() == 0, command.text
        # From that of which the driver has heard: it was stopped as soon as the store had the first.
        assert re.search(r"of big \(seed 0\) died.*; it goes on from epoch [012]", command.text), command.text
    return Moved(folder, at_once, before)


def training(folder: File) -> set[int]:
    """The processes that train something."""
    found = set()
    for file in (folder / "store").glob("*/lease-*"):
        with suppress(OSError, ValueError):  # released, or renewed, at this moment
            found.add(json.loads(file.read_text())["pid"])
    return found


def test_a_node_that_comes_is_used(moved: Moved) -> None:
    assert moved.at_once == 2, "two stages were never trained at once"


def test_a_node_that_dies_takes_nothing_with_it_that_was_finished(moved: Moved, undisturbed: File) -> None:
    assert studies.stored(moved.folder) == studies.stored(undisturbed)
    after = studies.written(moved.folder)
    assert moved.before and {key: after[key] for key in moved.before} == moved.before, "nothing was trained again"


def test_a_node_that_is_to_be_taken_away_is_left_after_the_step_and_gets_no_more_stages(
    nodes: Cluster, undisturbed: File, tmp_path: File
) -> None:
    write(tmp_path, TEXT)
    _, going = have(nodes, 2)
    with underway(tmp_path, *RUN, "--address", nodes.address) as command:
        command.until(lambda: " started " in command.text)
        drain(nodes.address, going.node_id)
        assert command.end() == 0, command.text
    nodes.remove_node(going)
    # Nothing is trained there any more, and if something was when the notice came, it went on with the step after.
    assert command.text.count(" left, for it or its node is taken away; it goes on from epoch ") <= 1
    assert studies.stored(tmp_path) == studies.stored(undisturbed)
    assert not begun(tmp_path)()


def test_workers_of_which_one_has_a_node_that_is_taken_away_or_dies_go_on_together_when_another_comes(
    nodes: Cluster, tmp_path: File
) -> None:
    long = ("big: {detector", "big: {recipe: {epochs: 16}, resources: {workers: 2}, detector")
    write(tmp_path, changed(long, ("[alone]", "[]"), text=without("low", text=TEXT)))
    _, going = have(nodes, 2)
    with underway(tmp_path, *RUN[:2], "--address", nodes.address) as command:
        command.until(begun(tmp_path))
        drain(nodes.address, going.node_id)
        command.until(lambda: SHORT in command.text)
        nodes.remove_node(going)
        other = nodes.add_node(num_cpus=1)
        further(command, tmp_path)
        nodes.remove_node(other, allow_graceful=False)
        nodes.add_node(num_cpus=1)
        assert command.end() == 0, command.text
    assert "of big (seed 0) left, for it or its node is taken away; it goes on from epoch " in command.text
    told = (
        "one of 2 workers is gone; all go on",
        " of 2 died with its node; all go on",
        "of big (seed 0) died with its",
    )
    assert any(text in command.text for text in told), command.text
    (first,) = (stage for path, stage in studies.stages(tmp_path).items() if path == ("big",))
    assert [epoch["epoch"] for epoch in first["history"]] == list(range(1, 17)), "no epoch was trained twice"
