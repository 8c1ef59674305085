"""Tables of the page: they sort, fold, and are taken along with all that the pictures show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from orchestrator.drawing import TOLD, drawing
from orchestrator.report import render
from tests.orchestrator import report_pages
from tests.orchestrator.boards import board, fail, summary, the_answer
from tests.orchestrator.report_pages import large, large_page, page, rows
from tests.orchestrator.report_pictures import CLASSES, found_by

if TYPE_CHECKING:
    from tests.orchestrator.browser import Browser


def test_a_table_sorts_by_numbers_and_keeps_what_is_unknown_last(browser: Browser) -> None:
    browser.show(page("broken"))
    ways = []
    for _ in range(2):
        browser.click("#stages th[data-sort].n button", 1)
        column = browser.column("stages", "AP")
        known = [float(cell) for cell in column if cell]
        assert column[len(known) :] == [""] * (len(column) - len(known)) and len(known) < len(column)
        ways.append(known)
    assert ways == [sorted(ways[0], reverse=True), sorted(ways[0])]
    assert browser.run("return document.querySelectorAll('#stages th')[3].getAttribute('aria-sort')") == "ascending"


def test_numbers_sort_as_numbers_and_words_as_words(browser: Browser) -> None:
    names = ["m0", "m10", "m9"]
    found = summary(board(names), names)
    for stage, seconds in zip(found["stages"], (9.0, 100.0, 20.0, 1000.0, 3.0), strict=False):
        stage["seconds"] = seconds
    browser.show(render(found))
    browser.click("#stages th[data-sort].n button", 2)
    assert browser.column("stages", "time") == ["16:40", "1:40", "20 s", "9.0 s", "3.0 s"]
    browser.click("#models th button")
    assert browser.column("models", "model") == ["m0", "m9", "m10"]


def test_what_a_table_shows_can_be_taken_along_as_it_stands(browser: Browser) -> None:
    browser.show(page("broken"))
    browser.click("#stages th[data-sort].n button", 1)
    taken = rows(browser.take("Download stages as CSV").read_text())
    assert [row["stage"] for row in taken] == browser.column("stages", "stage")
    assert [f"{float(row['AP']):.3f}" if row["AP"] else "" for row in taken] == browser.column("stages", "AP")
    assert {float(row["time (s)"]) for row in taken if row["time (s)"]} == {
        stage["seconds"] for stage in report_pages.broken()["stages"] if stage["seconds"]
    }
    same = json.loads(browser.take("Download stages as JSON").read_text())
    assert [{name: "" if value is None else str(value) for name, value in row.items()} for row in same] == taken
    browser.choose("#only", "failed")
    chosen = rows(browser.take("Download stages as CSV").read_text())
    assert [row["state"] for row in chosen] == ["failed"]


def test_a_folded_table_shows_the_first_rows_in_every_order_and_is_taken_along_whole(browser: Browser) -> None:
    shown = "return [...document.querySelectorAll('#paths tbody tr:not([hidden])')].map(x => x.cells[0].dataset.v)"
    browser.show(large_page())
    answer = the_answer(large())
    by_score = [" > ".join(outcome["path"]) for outcome in answer["ranking"]]
    assert browser.run(shown) == [*by_score[:20], "m9"], "and the student alone"
    browser.click("#paths th[data-sort] button")
    by_name = sorted([*by_score, "m9"])
    assert browser.run(shown) == [*by_name[:20], "m9"]
    browser.click("#paths th[data-sort] button")
    assert browser.run(shown) == by_name[:-21:-1], "the student alone is the first of them"
    browser.click("#paths th[data-sort].n button")
    assert browser.run(shown)[:20] == by_score[:20]
    assert len(rows(browser.take("Download paths as CSV").read_text())) == 257
    browser.click("#h-paths ~ .more")
    browser.click("#paths th[data-sort] button")
    assert sorted(browser.run(shown)) == by_name


def test_what_begins_like_a_formula_is_harmless_in_a_spreadsheet_and_numbers_stay_numbers(browser: Browser) -> None:
    names = ["=HYPERLINK(0)", "@SUM", '-1+1"', "+44"]
    filled = board(names, name="formulas")
    fail(
        filled, next(row.path for row in filled.rows.values() if row.path.models == tuple(names[:2])), "\t=cmd|' /C'!A0"
    )
    browser.show(render(summary(filled, names)))
    models = browser.take("Download models as CSV").read_text()
    assert [row["model"] for row in rows(models)] == ["'=HYPERLINK(0)", "'@SUM", "'-1+1\"", "+44"]
    whys = [row["why"] for row in rows(browser.take("Download stages as CSV").read_text())]
    assert "'=cmd|' /C'!A0" in whys
    gains = [row["over direct"] for row in rows(browser.take("Download paths as CSV").read_text())]
    assert any(gain.startswith("-") for gain in gains) and all(gain == "" or float(gain) for gain in gains)
    assert json.loads(browser.take("Download models as JSON").read_text())[0]["model"] == "=HYPERLINK(0)"


def test_pictures_and_all_of_the_report_can_be_taken_along_too(browser: Browser) -> None:
    found = report_pages.seeded()
    browser.show(page("seeded"))
    points = rows(browser.take("Download pareto as CSV").read_text())
    best = the_answer(found)["best"]
    assert max(points, key=lambda point: float(point["score"]))["path"] == " > ".join(best["path"])
    seeds = rows(browser.take("Download seeds as CSV").read_text())
    assert [float(row["AP"]) for row in seeds[:3]] == best["scores"] and [row["seed"] for row in seeds[:3]] == [
        "0",
        "1",
        "2",
    ]
    taken = {file.name.removeprefix("voc-gfl-"): file.read_text() for file in browser.take_all("#everything button")}
    assert taken["study.yaml"] == found["study_yaml"]
    told = json.loads(taken["report.json"])
    assert told.keys() == {*TOLD, "models", "lattice", "stages", "points", "sweeps", "rungs", "seen"}
    assert told["lattice"] == json.loads(json.dumps(drawing(found)["edges"])) and told["seen"] is None
    assert told["cost"] == json.loads(json.dumps(found["cost"]))
    assert [{"path": point["path"], "score": point["score"]} for point in told["points"]][:2] == [
        {"path": one["path"], "score": one["score"]} for one in the_answer(found)["ranking"][:2]
    ]
    assert told["answers"] == json.loads(json.dumps(found["answers"])) and told["made"] == report_pages.MADE
    assert [stage["key"] for stage in told["stages"]] == [stage["key"] for stage in found["stages"]]
    epochs = rows(taken["curves.csv"])
    assert len(epochs) == sum(len(stage["history"]) for stage in found["stages"])
    assert float(epochs[0]["val/AP"]) == pytest.approx(found["stages"][0]["history"][0]["val/AP"], rel=1e-4)


HEADS = {
    "lattice": [
        "teacher", "student", "AP", "on the best path", "state", "setting", "path", "trainings", "key",
    ],
    "detections": ["image", "role", "by", "class", "score", "is", "object", "x1", "y1", "x2", "y2"],
    "edge distributions": [
        "image", "class", "role", "by", "edge", "bin", "probability", "truth", "divergence",
    ],
    "pareto": ["name", "score", "spread", "seconds", "parameters", "latency_ms", "path", "on the front of"],
    "seeds": ["path", "seed", "AP"],
    "settings": ["edge", "LD.weight", "recipe.lr", "AP", "epochs", "state", "won"],
    "races": ["race", "line", "epoch", "AP", "state"],
    "chosen curves": [
        "stage", "key", "seed", "epoch",
        "train/loss", "train/loss_LD", "train/loss_box", "train/loss_cls", "val/AP", "val/AP50",
    ],
}  # fmt: skip
EVERY = ("lattice", "paths", "beside", "stages", "models", "pareto", "seeds", "expected", "costs", "chosen curves")


@pytest.mark.parametrize(
    ("study", "names"),
    [
        ("seeded", EVERY),
        ("mapped", ("winners", "reached", "settings", "races")),
        ("several", ("students", "detections", "edge distributions")),
    ],
)
def test_what_can_be_taken_along_has_the_same_columns_as_both_kinds_of_file(
    browser: Browser, study: str, names: tuple[str, ...]
) -> None:
    browser.show(page(study))
    offered = browser.run("return [...document.querySelectorAll('main .take button')].map(x => x.ariaLabel)")
    labels = [f"Download {name} as {kind}" for name in names for kind in ("CSV", "JSON")]
    assert sorted(labels) == sorted(offered) if study == "seeded" else set(labels) < set(offered)
    files = browser.take_all(", ".join(f"[aria-label='{label}']" for label in labels))
    texts = {file.name.removeprefix(report_pages.STUDIES[study]()["study"] + "-"): file.read_text() for file in files}
    assert len(texts) == len(labels)
    for name in names:
        file = name.replace(" ", "_")
        told, same = rows(texts[f"{file}.csv"]), json.loads(texts[f"{file}.json"])
        heads = "return [...document.querySelectorAll(`#${arguments[0]} thead th`)].map(x => x.textContent.trim())"
        expected = HEADS.get(name) or browser.run(heads, name)
        assert [head.partition(" (")[0] for head in told[0]] == expected
        assert len(same) == len(told) > 0 and all(list(row) == list(told[0]) for row in same)


def test_the_curves_of_a_training_can_be_taken_along_from_the_side(browser: Browser) -> None:
    browser.show(page("searched"))
    browser.click("[data-model=r18]")
    csv, same = sorted(browser.take_all("dialog .take button"), key=lambda file: file.suffix)
    told = rows(csv.read_text())
    assert [(row["stage"], row["epoch"], row["val/AP"]) for row in told][-1] == ("r101 > r18, LD.weight 4", "6", "0.7")
    assert len(told) == len(json.loads(same.read_text())) == 6


def test_the_lattice_is_taken_along_edge_by_edge_with_scores_and_settings(browser: Browser) -> None:
    browser.show(page("mapped"))
    taken = rows(browser.take("Download lattice as CSV").read_text())
    assert [(row["teacher"], row["student"], row["setting"], row["path"]) for row in taken] == [
        ("r101", "r18", "LD.weight 2, recipe.lr 0.1", "r101 > r18"),
        ("r101", "r50", "LD.weight 2, recipe.lr 0.004", "r101 > r50"),
        ("r50", "r18", "LD.weight 2, recipe.lr 0.1", "r101 > r50 > r18"),
    ]
    assert [float(row["AP"]) for row in taken] == pytest.approx([0.46, 0.55, 0.66])
    assert [row["on the best path"] for row in taken] == ["false", "true", "true"]
    known = {stage["key"]: stage for stage in report_pages.mapped()["stages"]}
    assert [known[row["key"]]["path"] for row in taken] == [row["path"].split(" > ") for row in taken]
    browser.show(page("broken"))
    failed = next(row for row in json.loads(browser.take("Download lattice as JSON").read_text()) if row["AP"] is None)
    assert (failed["teacher"], failed["state"], failed["trainings"]) == ("r101", "failed", "1 failed")


def test_what_detectors_find_is_taken_along_box_by_box_and_bin_by_bin(browser: Browser) -> None:
    found = found_by(board(students=report_pages.STUDENTS), report_pages.several())
    browser.show(page("several"))
    taken = rows(browser.take("Download detections as CSV").read_text())
    there = [row for row in taken if row["role"] == "truth"]
    truth = [(image["name"], *box[:4]) for image in found["images"] for box in image["truth"]]
    assert [(row["image"], *(float(row[end]) for end in ("x1", "y1", "x2", "y2"))) for row in there] == truth
    assert [row["class"] for row in there[:3]] == ["person", CLASSES[1], CLASSES[2]]
    boxes = [
        (image["name"], panel["title"], box)
        for image in found["images"]
        for panel, own in zip(found["panels"], image["found"], strict=True)
        for box in own
    ]
    others = [row for row in taken if row["role"] != "truth"]
    assert [(row["image"], row["by"], float(row["score"]), float(row["x1"])) for row in others] == [
        (name, title, box[4], box[0]) for name, title, box in boxes
    ]
    judged = {-1: "wrong", -2: "does not count"}
    assert [row["is"] for row in others] == [judged.get(box[6], "right") for _, _, box in boxes]
    bins = rows(browser.take("Download edge distributions as CSV").read_text())
    assert [float(row["probability"]) for row in bins] == [
        value for line in found["edges"]["lines"] for side in line["edges"] for value in side
    ]
    assert bins[0]["by"] == "r101" and bins[0]["edge"] == "left" and float(bins[0]["truth"]) == 4.2
    (whole,) = [file for file in browser.take_all("#everything button") if file.name.endswith("report.json")]
    seen = json.loads(whole.read_text())["seen"]
    assert seen == json.loads(json.dumps(found)) | {
        "images": [
            json.loads(json.dumps({name: one for name, one in image.items() if name != "uri"}))
            for image in found["images"]
        ]
    }
