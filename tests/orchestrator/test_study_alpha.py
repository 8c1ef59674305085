"""What a loss is multiplied by, as a study writes it."""

from pathlib import Path

import pytest

from orchestrator.facts import parameters
from orchestrator.lattice import Path as Way
from orchestrator.study import load
from tests.orchestrator.studies import changed, write
from trainers.call import Auto, Invalid
from trainers.spec import Data

WRITTEN = "distill: [{LD: {weight: 0.25, temperature: 10}}]"


def text(alpha: str) -> str:
    return changed((WRITTEN, f"distill: [{{LD: {{weight: 0.25}}, alpha: {alpha}}}]"))


@pytest.mark.parametrize(
    ("alpha", "known", "logged"),
    [
        ("auto", Auto(auto=1.0), '{"auto": 1.0}'),
        ("{auto: 0.5}", Auto(auto=0.5), '{"auto": 0.5}'),
        ("2", 2.0, "2.0"),
        ("1", 1.0, None),
    ],
)
def test_a_study_says_what_a_loss_is_multiplied_by(
    tmp_path: Path, alpha: str, known: Auto | float, logged: str | None
) -> None:
    study = load(write(tmp_path, text(alpha)))
    assert study.distill[0].alpha == known
    stage = study.lattice(Data(fingerprint="", classes=("a",))).stage(Way(("big", "wee")), 0)
    assert stage.distill[0].alpha == known and parameters(stage).get("distill.LD.alpha") == logged


def test_it_may_be_set_from_the_command_line(tmp_path: Path) -> None:
    file = write(tmp_path, text("2"))
    assert load(file, ["distill.0.alpha=auto"]).distill[0].alpha == Auto()
    assert load(file, ["distill.0.alpha={auto: 3}"]).distill[0].alpha == Auto(auto=3)


@pytest.mark.parametrize("alpha", ["-1", "none", "{auto: 0}", "{ratio: 1}", "[1]", "null", "true"])
def test_what_it_cannot_be_is_refused_at_its_line(tmp_path: Path, alpha: str) -> None:
    with pytest.raises(Invalid, match=r"tiny\.yaml:9: distill\.0.*: write a number from 0, or auto, or \{auto:"):
        load(write(tmp_path, text(alpha)))
