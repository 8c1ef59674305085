"""What `tapath best` answers of experiments that have some stages."""

from __future__ import annotations

from dataclasses import replace

from click.testing import CliRunner, Result

from orchestrator.board import Row
from orchestrator.cli import main
from tests.orchestrator.tracked import begin, settle


def best(uri: str, *words: str) -> Result:
    """`tapath best`, in this process."""
    ended = CliRunner().invoke(main, ["best", "--tracking", uri, *words])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def record(uri: str, name: str, *rows: Row, **facts: str) -> None:
    """An experiment with these stages."""
    opened = begin(uri, name, **facts)
    settle(opened, *rows)
    opened.close("FINISHED")


def on(data: str, one: Row) -> Row:
    """The same on other data."""
    stage = one.stage.model_copy(update={"data": one.stage.data.model_copy(update={"fingerprint": data})})
    return replace(one, stage=stage)
