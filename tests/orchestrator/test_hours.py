"""A budget in GPU hours: priced once, by what was measured, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path as File

import pytest
import torch

from orchestrator import experience
from orchestrator.lattice import Path
from orchestrator.prepared import prepare
from tests.orchestrator.studies import STAGES
from tests.orchestrator.test_forecast import studied, trained
from trainers import build
from trainers.call import Invalid


def test_a_budget_in_hours_reckons_at_every_start_as_it_did_at_the_first(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that goes on would drop what it has trained, or refuse its own study."""
    limited = ("search={budget: {gpu_hours: 1}}", "seeds=[1]")
    trained(prepare(studied(tmp_path)), *STAGES, seconds=36.0)
    first = prepare(studied(tmp_path, *limited))
    stage = first.lattice.stage(Path(("big", "wee")), 1)
    before = first.lattice.cost(stage)
    assert first.lattice.in_hours and before == pytest.approx(0.01)
    assert prepare(studied(tmp_path, *limited)).lattice.cost(stage) == before
    first.keep()
    trained(prepare(studied(tmp_path, "seeds=[1]")), *STAGES, seconds=7200.0)
    again = prepare(studied(tmp_path, *limited))
    assert again.lattice.cost(stage) == before and again.costs.predict(stage).seconds > 36
    monkeypatch.setattr(experience, "NEWEST", 3)
    assert prepare(studied(tmp_path, *limited)).lattice.cost(stage) == before, "however much is newer"
    monkeypatch.undo()
    other = prepare(studied(tmp_path, "search={budget: {gpu_hours: 99}}", "seeds=[1]"))
    assert other.lattice.cost(stage) > before, "another limit is another search"
    with pytest.raises(Invalid, match="plan without --no-data"):
        prepare(studied(tmp_path, *limited), provisional=True)
    (file,) = (tmp_path / "store" / "prices").iterdir()
    file.write_text("{")
    with pytest.raises(Invalid, match="remove that file, and it is priced anew"):
        prepare(studied(tmp_path, *limited))


def test_where_nothing_of_what_was_measured_is_left_it_is_priced_anew_and_for_good(tmp_path: File) -> None:
    limited = ("search={budget: {gpu_hours: 1}}", "seeds=[1]")
    trained(prepare(studied(tmp_path)), *STAGES, seconds=36.0)
    first = prepare(studied(tmp_path, *limited))
    first.keep()
    stage = first.lattice.stage(Path(("big", "wee")), 1)
    for result in (tmp_path / "store").glob("*/result.json"):
        shutil.rmtree(result.parent)
    trained(prepare(studied(tmp_path, "seeds=[2]")), *STAGES, seconds=72.0)
    second = prepare(studied(tmp_path, *limited))
    assert second.lattice.cost(stage) == pytest.approx(0.02)
    second.keep()
    trained(prepare(studied(tmp_path, "seeds=[3]")), *STAGES, seconds=7200.0)
    assert prepare(studied(tmp_path, *limited)).lattice.cost(stage) == pytest.approx(0.02)


def test_a_published_student_makes_no_hours_known(tmp_path: File) -> None:
    """It costs nothing alone; what it costs with a teacher nobody has measured."""
    bare = prepare(studied(tmp_path))
    wee = build.network(bare.lattice.models["wee"].model, 3)
    torch.save(wee.state_dict(), tmp_path / "wee.pt")
    with pytest.raises(Invalid, match="how many GPU hours a stage takes is not known yet"):
        prepare(studied(tmp_path, "search={budget: {gpu_hours: 1}}", f"models.wee.weights={tmp_path / 'wee.pt'}"))
