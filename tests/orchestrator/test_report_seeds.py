"""The page of a study with several seeds: what stands beside the best path, every seed as a point, and ties."""

from orchestrator.drawing import drawing
from orchestrator.lattice import Path
from orchestrator.report import render
from tests.orchestrator.boards import board, longer, summary, the_answer
from tests.orchestrator.test_report import EVIL, Page

SEEDS = (0, 1, 2)


def three_seeds(score=lambda path, seed: 0.5):
    """Three seeds of every path, the student alone and the student alone for longer."""
    filled = board(seeds=SEEDS)
    longer(filled, seeds=SEEDS)
    for each in filled.rows.values():
        each.score = score(each.path, each.seed)
    return summary(filled, seeds=SEEDS)


def uneven(path, seed):
    if path == Path(("r101", "r34", "r18")):  # .003 behind the longest path on average, give or take more
        return 0.637 + 0.01 * seed - 0.02 * (seed == 1)
    return 0.6 + 0.01 * len(path.models) + 0.01 * seed + 0.001 * (seed == 1) + 0.005 * (path.budget > 1)


def test_beside_the_best_path_stand_the_student_alone_the_direct_path_and_the_student_alone_for_longer():
    found = three_seeds(uneven)
    page = Page(render(found))
    rows = page.rows[next(i for i, row in enumerate(page.rows) if row[0] == "what") :]
    assert [cells[0] for cells in rows[1:5]] == [
        "r101 > r50 > r34 > r18",
        "r18 alone",
        "r101 > r18 directly",
        "r18 alone with the same compute, 48 epochs",
    ]
    assert [cells[2] for cells in rows[1:5]] == ["", "+0.030", "+0.020", "+0.025"]
    assert rows[3][3].startswith("+0.0") and " to +0.0" in rows[3][3]


def test_with_one_seed_the_same_stands_there_without_intervals():
    page = Page(render(summary(board())))
    assert ["what", "AP", "the best gains", "training time"] in page.rows
    assert "h-seeds" not in render(summary(board()))


def test_every_seed_is_a_point_and_every_mean_has_its_interval():
    found = three_seeds(uneven)
    rows = drawing(found)["seeds"]
    assert [row["name"] for row in rows] == [
        *(" > ".join(outcome["path"]) for outcome in the_answer(found)["ranking"]),
        "r18 alone",
        "r18 alone, 48 epochs",
    ]
    for row in rows:
        low, high = row["interval"]
        assert len(row["scores"]) == 3 and low < row["score"] < high
    assert [row["name"] for row in rows if row["tied"]] == [" > ".join(path) for path in the_answer(found)["tied"]]
    assert 'id="seeds"' in render(found)


def test_what_is_tied_and_what_is_recommended_is_marked_in_the_ranking():
    found = three_seeds(uneven)
    assert the_answer(found)["tied"] == [["r101", "r50", "r34", "r18"], ["r101", "r34", "r18"]]
    cells = [row[0] for row in Page(render(found)).table("path")]
    assert cells[0] == "r101 > r50 > r34 > r18tied" and cells.count("r101 > r34 > r18tied, recommended") == 1
    assert cells[-1] == "r18 alone"


def test_of_many_paths_the_first_are_drawn_and_what_they_stand_beside():
    names = [f"m{i}" for i in range(8)]
    rows = drawing(summary(board(names, seeds=SEEDS), names, seeds=SEEDS))["seeds"]
    assert len(rows) in (21, 22)  # twenty, the student alone, and the direct path if it is not among them
    assert {"m7 alone", "m0 > m7"} <= {row["name"] for row in rows}


def test_hostile_names_stay_text_where_seeds_are_drawn():
    filled = board(EVIL, seeds=SEEDS, epochs=3)
    html = render(summary(filled, EVIL, seeds=SEEDS))
    page = Page(html)
    plain = Page(render(three_seeds()))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert html.count("</script>") == 2 and "h-seeds" in html
    assert f"{EVIL[-1]} alone" in [row["name"] for row in page.data["seeds"]]
