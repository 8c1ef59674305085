"""The lattice in the page, and the trainings that a click on a model, an edge or a stage opens from the side."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from orchestrator.report import render
from tests.orchestrator import report_pages
from tests.orchestrator.boards import board, row, summary, the_answer
from tests.orchestrator.report_pages import page

if TYPE_CHECKING:
    from tests.orchestrator.browser import Browser

ESCAPE = "\ue00c"  # as WebDriver writes it


def test_the_lattice_shows_scores_the_best_path_and_what_failed_or_was_given_up(browser: Browser) -> None:
    browser.show(page("broken"))
    best = the_answer(report_pages.broken())["best"]
    labels = browser.run("return [...document.querySelectorAll('[data-model]')].map(x => x.ariaLabel)")
    assert labels[0].startswith("r101, AP 0.") and "51.2 M parameters" in labels[0]
    edges = dict(
        browser.run("return [...document.querySelectorAll('[data-edge]')].map(x => [x.dataset.edge, x.classList[1]])")
    )
    assert {edge for edge, kind in edges.items() if kind == "best"} == {
        " > ".join(two) for two in pairwise(best["path"])
    }
    assert edges["r101 > r34"] == "bad" and edges["r50 > r34"] == "pruned"
    shown = browser.texts("#lattice text")
    assert "\u00d7 failed" in shown and "given up" in shown
    assert {"failed, or what it needed did", "given up early", "on the best path"} < set(browser.texts("#legend li"))


def test_a_click_on_a_model_shows_its_curves_its_losses_by_name_its_setting_and_its_time(browser: Browser) -> None:
    browser.show(page("searched"))
    assert "LD.weight 4" in browser.texts("#lattice text"), "an edge has its setting"
    browser.click("[data-model=r18]")
    assert browser.texts("dialog h2") == ["r18"]
    assert browser.texts("dialog h3") == ["r101 > r18, LD.weight 4"]
    assert {"settingLD.weight 4", "losses of distillationLD (weight 4.0)", "statedone", "time2:00"} < set(
        browser.texts("dialog dl div")
    )
    assert browser.texts("dialog tr[aria-current] td")[1:] == ["LD.weight 4", "done", "0.700", "2:00"]
    browser.click("dialog td button", 2)
    path, setting = browser.texts("dialog tr[aria-current] td")[:2]
    assert browser.texts("dialog h3") == [f"{path}, {setting}"] != ["r101 > r18, LD.weight 4"]
    browser.show(page("seeded"))
    browser.click("[data-model=r50]")
    assert browser.texts("dialog figcaption") == [
        "val/AP", "train/loss", "train/loss_LD", "train/loss_box", "train/loss_cls", "val/AP50",
    ]  # fmt: skip
    browser.click("dialog .link")
    assert (
        browser.texts("dialog h2") == ["r101"] and browser.run("return document.querySelectorAll('dialog').length") == 1
    )
    assert browser.said() == []


def test_a_stage_of_a_table_and_an_edge_open_it_too(browser: Browser) -> None:
    browser.show(page("broken"))
    place = browser.column("stages", "stage").index("r101 > r34")
    browser.click("#stages td button", place)
    assert "RuntimeError: the loss became NaN in step 3" in " ".join(browser.texts("dialog dd"))
    browser.click("dialog .close")
    assert not browser.run("return document.querySelector('dialog').open")
    edge(browser, "r50 > r18")
    assert browser.texts("dialog h3") == ["r101 > r50 > r18"]
    edge(browser, "r101 > r34")
    assert "statefailed" in browser.texts("dialog dl div"), "without a score it opens what it says"


def edge(browser: Browser, ends: str) -> None:
    """A click on its arc, wherever others cross it."""
    browser.run(
        "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click'))", f"[data-edge='{ends}'] + path"
    )


def test_an_edge_opens_the_setting_that_it_shows(browser: Browser) -> None:
    browser.show(page("searched"))
    assert {"0.700", "LD.weight 4"} < set(browser.texts("#lattice text"))
    edge(browser, "r101 > r18")
    assert browser.texts("dialog h3") == ["r101 > r18, LD.weight 4"]
    browser.show(page("mapped"))
    for ends, score, setting in (
        ("r101 > r50", "0.550", "LD.weight 2, recipe.lr 0.004"),
        ("r50 > r18", "0.660", "LD.weight 2, recipe.lr 0.1"),
        ("r101 > r18", "0.460", "LD.weight 2, recipe.lr 0.1"),
    ):
        assert score in browser.texts("#lattice text")
        edge(browser, ends)
        assert {f"AP{score}", f"setting{setting}"} < set(browser.texts("dialog dl div"))
        browser.press(ESCAPE)
    browser.click("[data-model=r50]")
    assert browser.texts("dialog h3") == ["r101 > r50, LD.weight 2, recipe.lr 0.004"], "on the best path"


def test_what_is_opened_as_soon_as_another_is_closed_stays(browser: Browser) -> None:
    browser.show(page("broken"))
    browser.click("[data-model=r50]")
    browser.driver.execute_async_script(
        "document.querySelector('dialog').close();"
        "document.querySelector('[data-model=r18]').dispatchEvent(new MouseEvent('click'));"
        "setTimeout(arguments[0], 50);"
    )
    assert browser.texts("dialog h2") == ["r18"]
    browser.press(ESCAPE)
    browser.until("!document.querySelector('dialog').childElementCount")


def test_an_edge_on_the_best_path_opens_its_own_stage_and_not_a_better_one_elsewhere(browser: Browser) -> None:
    names = ["m0", "m1", "m2", "m3", "m4"]
    filled = board(names)
    row(filled, "m0", "m2", "m3", "m4").score = 0.98
    row(filled, "m0", "m2", "m3").score, row(filled, "m0", "m1", "m2", "m3").score = 0.5, 0.97
    browser.show(render(summary(filled, names)))
    edge(browser, "m2 > m3")
    assert browser.texts("dialog h3") == ["m0 > m2 > m3"]
    assert "AP0.500" in browser.texts("dialog dl div") and "0.500" in browser.texts("#lattice text")
