"""The best of two experiments side by side: `tapath best --compare`."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import pytest

from tests.orchestrator.answered import best, on, record
from tests.orchestrator.tracked import row


@pytest.fixture
def pair(uri: str) -> str:
    """Studies `one` and `two` of three seeds, which differ in the weight of a loss and in an assistant."""
    gains = (0.1, 0.2, 0.3)
    teachers = [row("r101", "teacher", 0.9, seed=seed) for seed in range(3)]
    record(uri, "one", *teachers, *(row(seed=s, score=0.5 + gains[s], weight=0.5) for s in range(3)), metric="AP")
    record(uri, "two", *teachers, *(row(seed=s, score=0.5) for s in range(3)), metric="AP")
    return uri


def compared(uri: str, *words: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(best(uri, "--compare", *words, "--json").stdout)
    return made


def test_the_gain_is_seed_by_seed_with_its_interval(pair: str) -> None:
    made = compared(pair, "one", "two")
    assert made["comparable"] and made["paired"]
    assert made["gains"] == pytest.approx({"0": 0.1, "1": 0.2, "2": 0.3}) and made["gain"] == pytest.approx(0.2)
    reach = 0.95 * math.sqrt(2 / (1 - 0.95**2)) * 0.1 / math.sqrt(3)  # Student's t of two degrees of freedom
    assert made["interval"] == pytest.approx([0.2 - reach, 0.2 + reach])
    said = best(pair, "--compare", "one", "two").stdout
    assert "one is +0.2000 against two" in said and "a tie" in said


def test_without_records_mlflow_says_what_differs(pair: str) -> None:
    made = compared(pair, "one", "two")
    assert made["differences_from"] == "the parameters in MLflow"
    assert {"key": "distill.LD.weight", "here": "0.5", "there": "0.25"} in made["differences"]
    assert not [one for one in made["differences"] if one["key"].endswith("seed")]
    assert "  distill.LD.weight: 0.5 here, 0.25 there" in best(pair, "--compare", "one", "two").stdout
    assert compared(pair, "two", "two")["differences"] == []


def test_records_of_the_stores_say_what_differs_where_they_can_be_read(uri: str, tmp_path: File) -> None:
    for name, weight in (("one", 0.5), ("two", 0.25)):
        student = row(weight=weight)
        folder = tmp_path / name / student.key
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps({"stage": student.stage.model_dump(mode="json")}))
        record(uri, name, replace(student, weights=str(folder / "weights.safetensors")), metric="AP")
    made = compared(uri, "one", "two")
    assert made["differences_from"] == "the records of the stores"
    assert {"key": "distill.LD.weight", "here": 0.5, "there": 0.25} in made["differences"]


def test_without_a_common_seed_no_interval_is_made_up(uri: str) -> None:
    record(uri, "one", row(seed=0, score=0.6), metric="AP")
    record(uri, "two", row(seed=1, score=0.5, weight=0.5), metric="AP")
    made = compared(uri, "one", "two")
    assert not made["paired"] and made["interval"] is None and made["gain"] == pytest.approx(0.1)
    assert "share no seed" in best(uri, "--compare", "one", "two").stdout


def test_other_data_or_another_figure_do_not_compare(uri: str) -> None:
    record(uri, "one", row(), metric="AP")
    record(uri, "two", on("fed", row()), metric="AP50")
    made = compared(uri, "one", "two")
    assert not made["comparable"] and made["gain"] is made["interval"] is None and made["gains"] == {}
    said = best(uri, "--compare", "one", "two").stdout
    assert "do not compare" in said and "different data: abc; fed" in said and "figures: AP, AP50" in said
