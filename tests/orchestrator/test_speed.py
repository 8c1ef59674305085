"""What makes steps faster is refused at its key where it cannot be had."""

from pathlib import Path as File

import pytest

from orchestrator.prepared import prepare
from orchestrator.study import load
from tests.orchestrator.studies import without, write
from trainers.call import Invalid


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("resources.channels_last=true",), "resources.channels_last: this is for GPUs, and a stage has none"),
        (("models.big.resources.channels_last=true",), "models.big.resources.channels_last: this is for GPUs"),
        (
            ("resources.compile=true", "resources.sync_batch_norm=true"),
            "resources.compile: norms that ask other",
        ),
        (("resources.teacher_precision=fp16",), "resources.teacher_precision: "),
    ],
)
def test_it_says_where_and_what_helps(sets: tuple[str, ...], said: str, tmp_path: File) -> None:
    with pytest.raises(Invalid) as refusal:
        prepare(load(write(tmp_path, without("mid", "low")), sets))
    assert said in str(refusal.value)


def test_a_compiler_is_needed_where_stages_run_and_not_here(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "none-such")
    assert prepare(load(write(tmp_path, without("mid", "low")), ("resources.compile=true",)))


def test_with_gpus_and_a_compiler_it_is_taken(tmp_path: File) -> None:
    sets = ("resources.compile=true", "resources.channels_last=true", "resources.gpus=1")
    assert prepare(load(write(tmp_path, without("mid", "low")), sets)).study.resources.compile
