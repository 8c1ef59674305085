"""The figure that was not selected on stands beside the score, and ranks nothing."""

import pytest

from orchestrator import report
from orchestrator.facts import epochs, final
from orchestrator.verdict import verdict
from tests.orchestrator.boards import board, summary, the_answer


def measured(*seeds: int):
    """Every path has 0.1 less there than its score, but the student alone has most."""
    filled = board(seeds=seeds or (0,))
    for row in filled.rows.values():
        row.metrics = {"val/AP": row.score, "test/AP": 0.95 if row.role == "alone" else row.score - 0.1}
    return filled


def test_a_path_has_its_mean_on_the_test_and_is_ranked_by_its_score_all_the_same():
    found, plain = (summary(filled, seeds=(0, 1)) for filled in (measured(0, 1), board(seeds=(0, 1))))
    assert [o["path"] for o in the_answer(found)["ranking"]] == [o["path"] for o in the_answer(plain)["ranking"]]
    assert all(o["test"] == pytest.approx(o["score"] - 0.1) for o in the_answer(found)["ranking"])
    assert (
        the_answer(found)["baseline"]["test"] == pytest.approx(0.95)
        and the_answer(found)["best"] == the_answer(found)["ranking"][0]
    )
    assert all(o["test"] is None for o in the_answer(plain)["ranking"])


def test_a_mean_needs_all_its_seeds():
    filled = measured(0, 1)
    next(row for row in filled.rows.values() if row.role == "alone" and row.seed == 1).metrics = {}
    found = summary(filled, seeds=(0, 1))
    assert the_answer(found)["baseline"]["test"] is None and the_answer(found)["best"]["test"] is not None


def test_the_report_has_a_column_for_it_and_the_verdict_says_it():
    found = summary(measured())
    best = the_answer(found)["best"]["test"]
    said = f"On the test images, on which nothing was selected, it has AP {best:.3f}, r18 alone 0.950."
    assert said in verdict(found)
    page = report.render(found)
    assert said in page and f'data-v="{best}">{best:.3f}</td>' in page and ">test</th>" in page


def test_without_a_test_nothing_is_said_of_one():
    found = summary(board())
    assert ">test</th>" not in report.render(found) and not any("test images" in line for line in verdict(found))


def test_mlflow_has_it_with_the_checkpoint_and_not_with_the_epochs():
    row = next(iter(measured().rows.values()))
    assert final(row)["test/AP"] == row.metrics["test/AP"]
    assert not any("test/AP" in epoch for epoch in epochs(row, 1, row.epoch))
    assert final(row)["val/AP"] == row.history[-1]["val/AP"]
