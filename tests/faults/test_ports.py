"""Who can reach the workers of a stage that has several: where all are on one node, nobody who is on another."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path as File
from unittest import mock

import pytest

from tests.faults.clusters import WORKERS
from tests.faults.servers import exposed
from tests.orchestrator import studies
from tests.orchestrator.studies import TAPATH, command_line, underway, without, write
from trainers import meeting

TWO = ("--set", "models.big.resources={workers: 2, cpus: 0.5}")


@pytest.mark.ray
@pytest.mark.slow
def test_several_workers_on_one_machine_listen_to_it_alone(tmp_path: File) -> None:
    write(tmp_path, without("mid", "low"))
    open_to_all, workers = set[str](), set[int]()
    with underway(tmp_path, "run", "tiny.yaml", *TWO, program=(TAPATH,)) as command:
        while command.popen.poll() is None:
            there = command.look()
            workers |= {one[0] for one in there if command_line(one).startswith(WORKERS)}
            open_to_all |= exposed(pid for pid, _ in there)
            time.sleep(0.1)
        assert command.end() == 0, command.text
    big = File(tmp_path / "store" / studies.stages(tmp_path)["big",]["key"] / "result.json")
    assert json.loads(big.read_text())["usage"]["workers"] == 2
    assert len(workers) >= 2 and open_to_all == set()


def test_gloo_and_nccl_stay_on_the_loopback_interface_unless_somebody_has_chosen_another() -> None:
    """Else gloo listens at the address that the machine's name has, which may be anybody's to reach."""
    with mock.patch.dict(os.environ):
        os.environ.pop("GLOO_SOCKET_IFNAME", None)
        os.environ["NCCL_SOCKET_IFNAME"] = "ib0"
        meeting._stay(1234)
        assert os.environ["GLOO_SOCKET_IFNAME"] in {"lo", "lo0"} and os.environ["NCCL_SOCKET_IFNAME"] == "ib0"
        assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("127.0.0.1", "1234")
