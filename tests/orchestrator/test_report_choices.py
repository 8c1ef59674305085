"""What is chosen in the page: the lists above its pictures, a path in the ranking, and a setting in the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.answers import ways
from tests.orchestrator import report_pages
from tests.orchestrator.boards import the_answer
from tests.orchestrator.report_pages import page

if TYPE_CHECKING:
    from tests.orchestrator.browser import Browser


def test_cost_may_be_set_against_latency_and_parameters(browser: Browser) -> None:
    browser.show(page("several"))
    browser.run("document.getElementById('cost').scrollIntoView()")
    browser.until("document.querySelector('#cost svg')")
    for axis, named, unit in (
        ("latency_ms", "milliseconds an image", " ms"),
        ("parameters", "parameters", " M"),
        ("seconds", "training time", ":"),
    ):
        browser.choose("#against", axis)
        assert named in browser.texts("#cost text")
        told = browser.run("return [...document.querySelectorAll('#cost circle')].map(x => x.ariaLabel)")
        assert len(told) == len(ways(report_pages.several()["answers"])) and all(unit in one for one in told)
    assert browser.said() == []


def test_a_path_of_the_ranking_shows_the_stages_that_led_to_its_score(browser: Browser) -> None:
    browser.show(page("seeded"))
    answer = the_answer(report_pages.seeded())
    path = answer["ranking"][-1]["path"]
    browser.click("#paths td button", len(answer["ranking"]) - 1)
    led = [" > ".join(path[:end]) + ", seed 0" for end in range(1, len(path) + 1)]
    assert browser.until("document.querySelectorAll('#chips button').length") == len(path)
    assert browser.texts("#chips button") == [f"{one} \u00d7" for one in led]
    browser.click("#paths tr.alone button")
    assert browser.texts("#chips button") == ["r18 alone, seed 0 \u00d7"], "and not what was trained for longer"
    browser.show(page("mapped"))
    browser.click("#paths td button")
    assert browser.texts("#chips button") == [
        "r101 \u00d7", "r101 > r50, LD.weight 2, recipe.lr 0.004 \u00d7",
        "r101 > r50 > r18, LD.weight 2, recipe.lr 0.1 \u00d7",
    ]  # fmt: skip


def test_stages_are_added_to_the_curves_and_taken_away(browser: Browser) -> None:
    browser.show(page("broken"))
    browser.run("document.getElementById('h-curves').scrollIntoView()")
    browser.until("document.querySelectorAll('#chips button').length")
    before = browser.texts("#chips button")
    names = browser.run("return [...document.getElementById('add').options].map(x => x.textContent)")
    assert names[0] == "choose" and len(names) == 1 + sum(bool(s["history"]) for s in report_pages.broken()["stages"])
    new = next(name for name in names[1:] if f"{name} \u00d7" not in before)
    drawn = "document.querySelector('#curves figure').querySelectorAll('polyline').length"
    lines = browser.run(f"return {drawn}")
    browser.choose("#add", str(names.index(new) - 1))
    assert browser.texts("#chips button") == [*before, f"{new} \u00d7"]
    assert browser.run(f"return {drawn}") == lines + 1
    assert browser.run("return document.getElementById('add').value") == ""
    browser.click("#chips button", len(before))
    assert browser.texts("#chips button") == before and browser.run(f"return {drawn}") == lines


def test_the_settings_of_two_knobs_are_a_map_of_the_edge_that_is_chosen(browser: Browser) -> None:
    browser.show(page("mapped"))
    browser.run("document.getElementById('sweep').scrollIntoView()")
    browser.until("document.querySelector('#sweep svg')")
    assert browser.run("return document.getElementById('edge').selectedOptions[0].text") == "r101 > r50 > r18", (
        "the best"
    )
    for number, (edge, settings, best) in enumerate(
        (("r101 > r18", 4, "0.460"), ("r101 > r50", 4, "0.650"), ("r101 > r50 > r18", 8, "0.660"))
    ):
        browser.choose("#edge", str(number))
        assert browser.run("return document.querySelector('#sweep svg').ariaLabel") == f"Settings of {edge}"
        squares = browser.run("return [...document.querySelectorAll('#sweep rect')].map(x => x.ariaLabel)")
        won = [one for one in squares if ", the winner" in one]
        assert len(squares) == settings and won == [
            f"AP {best}, the winner\ndone after 12 epochs\nLD.weight 2\nrecipe.lr 0.1"
        ]
        assert {"LD.weight", "recipe.lr", "1", "1.5", "2", "0.001", "0.01", "0.1", best} <= set(
            browser.texts("#sweep text")
        )
    beyond = "[...document.querySelectorAll('#sweep text')].filter(x => x.getBoundingClientRect().right > arguments[0])"
    end = browser.run("return document.getElementById('sweep').getBoundingClientRect().right")
    assert browser.run(f"return {beyond}.map(x => x.textContent)", end) == []
    assert "0.560" not in browser.texts("#sweep text"), "the better of two at one place has its figure there"
    browser.click("#sweep rect", 7)
    assert browser.texts("#sweep .tip")[0].startswith("AP 0.660, the winner done after 12 epochs")
    places = browser.run(
        "return [...document.querySelectorAll('#sweep rect')].map(x => x.getBoundingClientRect().x > innerWidth / 2)"
    )
    assert places == ["LD.weight 2" in one for one in squares], "the first knob goes from left to right"


def test_each_race_is_chosen(browser: Browser) -> None:
    browser.show(page("mapped"))
    browser.run("document.getElementById('rungs').scrollIntoView()")
    browser.until("document.querySelector('#rungs svg')")
    races = report_pages.mapped()["rungs"]
    names = browser.run("return [...document.getElementById('race').options].map(x => x.text)")
    assert names == [race["name"] for race in races]
    for number, race in enumerate(races):
        browser.choose("#race", str(number))
        assert browser.run("return document.querySelector('#rungs svg').ariaLabel") == f"Rungs of {race['name']}"
        lines = browser.run("return [...document.querySelectorAll('#rungs g')].map(x => x.ariaLabel)")
        assert len(lines) == len(race["lines"]) and sum(", the winner" in one for one in lines) == 1
        (won,) = (line["name"] for line in race["lines"] if line["won"])
        assert any(text.startswith(f"winner: {won}") for text in browser.texts("#rungs .is-best"))
