"""Whoever corrects a loss and types the same command is told what the old one has taught."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path as File

import pytest

from orchestrator import plan as planning
from orchestrator import why as reasons
from orchestrator.study import Study, load
from tests.orchestrator import studies
from tests.orchestrator.stored import stage_of, store
from tests.orchestrator.studies import MODULE, changed, tapath, without, write
from trainers import sources
from trainers.store import Store

ROOT = File(__file__).parents[2]
OTHER = f"{sources.PYTHON}{'0' * 16}"
AGAIN = "has changed since. If that changes what is learnt, train anew in another --store"
TWO = without("mid", "low")


@pytest.fixture
def study(tmp_path: File) -> Study:
    """Of three stages, two of which the store has: the one taught by another LD than there is now."""
    made = load(write(tmp_path, TWO), (f"resources.store={tmp_path / 'store'}", f"resources.runs={tmp_path / 'runs'}"))
    store(made, ("big",), ("big", "wee"))
    remember(made, ("big",), {"detectors.GFL": sources.now("detectors.GFL") or ""})
    remember(made, ("big", "wee"), {"distill.LD": OTHER, "optim.AdamW": sources.now("optim.AdamW") or ""})
    return made


def remember(study: Study, path: tuple[str, ...], code: dict[str, str]) -> None:
    """Have the result of this path be of this code."""
    file = File(str(Store(study.resources.store).result_file(stage_of(study, *path).key)))
    file.write_text(json.dumps({**json.loads(file.read_text()), "sources": code}))


def begin(study: Study, path: tuple[str, ...], code: dict[str, str]) -> str:
    """Have a stage be begun by this code; -> its key."""
    there, key = Store(study.resources.store), stage_of(study, *path).key
    there.save_state(key, 1, {"epoch": 1})
    sources.note(there, key, code)
    return key


def said(text: str) -> list[str]:
    return [line for line in text.splitlines() if " the code of " in line or " other code of " in line]


def test_plan_and_status_say_once_what_is_reused_and_what_goes_on(study: Study) -> None:
    taught = stage_of(study, "big", "wee").key
    for made, text in ((planning.plan(study), planning.text), (planning.status(study), planning.status_text)):
        assert made["other_code"] == {"reused": {taught: ["LD"]}, "begun": {}}
        (line,) = said(text(made))
        assert line.startswith(f"1 stage is reused though the code of LD {AGAIN}")
    alone = begin(study, ("wee",), {"detectors.GFL": OTHER, "distill.LD": OTHER})
    for made, text in ((planning.plan(study), planning.text), (planning.status(study), planning.status_text)):
        assert made["other_code"] == {"reused": {taught: ["LD"]}, "begun": {alone: ["GFL", "LD"]}}
        (line,) = said(text(made))
        assert line.startswith(f"1 stage is reused and 1 stage goes on half-way though the code of LD and GFL {AGAIN}")


def test_only_what_goes_on_is_said_where_all_else_is_of_this_code(study: Study) -> None:
    remember(study, ("big", "wee"), {})
    assert said(planning.text(planning.plan(study))) == []
    begin(study, ("wee",), {"detectors.GFL": OTHER})
    (line,) = said(planning.text(planning.plan(study)))
    assert line.startswith(f"1 stage goes on half-way though the code of GFL {AGAIN}")


@pytest.mark.parametrize("code", [{}, {"distill.LD": f"2.7:{'0' * 16}"}, {"distill.Gone": OTHER, "os.system": OTHER}])
def test_nothing_is_said_where_nothing_is_known(study: Study, code: dict[str, str]) -> None:
    """By an earlier version, by another Python, or of what is not there any more."""
    remember(study, ("big", "wee"), code)
    begin(study, ("wee",), code)
    assert said(planning.text(planning.plan(study))) == said(planning.status_text(planning.status(study))) == []
    assert said(reasons.text(reasons.why(study))) == []


def test_without_the_data_nothing_is_known_of_it(study: Study) -> None:
    assert planning.plan(study, data=False)["other_code"] == {"reused": {}, "begun": {}}


def test_why_names_the_stages(study: Study) -> None:
    begin(study, ("wee",), {"detectors.GFL": OTHER})
    found = {tuple(one["path"]): one for one in reasons.why(study)["stages"]}
    assert found["big", "wee"]["other_code"] == ["LD"]
    assert found["big", "wee"]["reason"].endswith("result.json, though the code of LD has changed since")
    assert found["wee",]["other_code"] == ["GFL"]
    assert "it goes on after epoch 1 of 2, though the code of GFL has changed since" in found["wee",]["reason"]
    assert found["big",]["other_code"] == [] and "code" not in found["big",]["reason"]


def test_the_report_says_it_once(study: Study, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.session import rewrite

    monkeypatch.chdir(tmp_path)
    page = File(rewrite(study)).read_text()
    assert page.count("1 stage learnt by other code of LD than there is now.") == 1
    there = studies.stages(tmp_path)
    assert {path: stage["other_code"] for path, stage in there.items()} == {
        ("big",): [],
        ("big", "wee"): ["LD"],
        ("wee",): [],
    }


@pytest.fixture
def copy(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[File]:
    """The file of LD in sources of one's own, which the commands run."""
    for name in ("orchestrator", "trainers"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    yield tmp_path / "trainers" / "distill" / "ld.py"


@pytest.mark.ray
@pytest.mark.slow
def test_a_loss_that_is_edited_between_two_runs_is_named_and_a_comment_is_not(tmp_path: File, copy: File) -> None:
    write(tmp_path, changed(("epochs: 2", "epochs: 1"), text=TWO))
    first = tapath(tmp_path, "run", "tiny.yaml", program=MODULE)
    assert first.code == 0 and said(first.err + first.out) == [], first.err
    with copy.open("a") as source:
        source.write("\n# Nothing but a comment.\n")
    planned = tapath(tmp_path, "plan", "tiny.yaml", program=MODULE)
    assert planned.code == 0 and said(planned.out) == [], planned.err
    with copy.open("a") as source:
        source.write("\n\ndef _forward(self, *_):\n    raise KeyError\n\n\nLD.forward = _forward\n")
    again = tapath(tmp_path, "run", "tiny.yaml", program=MODULE)
    assert again.code == 0, again.err
    (line,) = said(again.err)
    assert f"1 stage is reused though the code of LD {AGAIN}" in line
    assert said(again.out) == ["1 stage learnt by other code of LD than there is now."]
    knob = changed(("temperature: 10", "temperature: 9"), ("epochs: 2", "epochs: 1"), text=TWO)
    write(tmp_path, knob)
    planned = tapath(tmp_path, "plan", "tiny.yaml", program=MODULE)
    assert planned.code == 0 and said(planned.out) == [], "other keys are other stages"
