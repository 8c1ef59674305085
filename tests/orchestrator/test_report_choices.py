"""What is chosen in the page: the lists above its pictures, a path in the ranking, and a setting in the map."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from statistics import correlation
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.answers import AXES, ways
from orchestrator.board import Board
from orchestrator.drawing import drawing
from orchestrator.lattice import Path
from orchestrator.report import render
from orchestrator.settings import Setting
from orchestrator.sweep import sweep
from orchestrator.swept import swept
from orchestrator.words import way
from tests.orchestrator import report_pages
from tests.orchestrator.boards import lattice, summary, the_answer, want
from tests.orchestrator.report_pages import page
from tests.orchestrator.sweeps import WEIGHT

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


def along(pixels: Sequence[float], values: Sequence[float]) -> bool:
    """Whether pixels lie as values do: in the same order, or the other way round, and at the same distances."""
    return abs(correlation(pixels, values)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("axis", AXES)
def test_the_front_is_a_line_through_those_that_no_cheaper_one_beats(browser: Browser, axis: str) -> None:
    found = ways(report_pages.several()["answers"])
    browser.show(page("several"))
    browser.choose("#against", axis)
    browser.all_drawn()
    dots = browser.run(
        "const at = (node, ...names) => names.map(name => Number(node.getAttribute(name)));"
        "return [...document.querySelectorAll('#cost circle')].map(x => [x.ariaLabel, ...at(x, 'cx', 'cy')])"
    )
    at = {one[0].split(" 0.")[0]: (one[1], one[2]) for one in dots}
    names = [way(outcome["path"]) for outcome in found]
    assert at.keys() == set(names) and len(names) == len(dots)
    assert along([at[name][0] for name in names], [outcome[axis] for outcome in found])
    assert along([at[name][1] for name in names], [outcome["score"] for outcome in found])
    front = {at[way(outcome["path"])] for outcome in found if axis in outcome["front"]}
    line = browser.run("return document.getElementById('front').getAttribute('d')")
    x, y, *steps = (float(number) for number in re.findall(r"[\d.]+", line))
    corners = [(x, y), *zip(steps[::2], steps[1::2], strict=True)]
    assert corners == sorted(front), "from the cheapest on"
    assert re.sub(r"[\d. ]+", "", line) == "M" + "HV" * (len(front) - 1), "across, then up"
    assert all(after[1] <= before[1] for before, after in pairwise(corners)), "each scores higher"


def test_every_seed_is_a_point_at_its_score_with_the_mean_and_its_interval(browser: Browser) -> None:
    found = report_pages.seeded()
    rows = drawing(found)["seeds"]
    browser.show(page("seeded"))
    browser.all_drawn()
    groups = browser.run(
        """
        const number = (node, ...names) => names.map(name => node[name].baseVal.value);
        return [...document.querySelectorAll("#seeds g")].map(group => ({
          label: group.ariaLabel,
          points: [...group.querySelectorAll("circle")].map(x => number(x, "cx", "cy")),
          lines: [...group.querySelectorAll("line")].map(x => number(x, "x1", "x2", "y1", "y2")),
        }));
        """
    )
    assert [group["label"] for group in groups] == [f"{row['name']} {row['score']:.3f}" for row in rows]
    assert [len(group["points"]) for group in groups] == [len(found["seeds"])] * len(rows)
    spots = [(x, score) for group, row in zip(groups, rows, strict=True) for (x, _), score in points(group, row)]
    means = [(group["lines"][-1][0], row["score"]) for group, row in zip(groups, rows, strict=True)]
    assert along(*zip(*spots, *means, strict=True)), "all on one axis"
    for group, row in zip(groups, rows, strict=True):
        (height,) = {y for _, y in group["points"]}
        x1, x2, y1, y2 = group["lines"][0]
        assert x1 < group["lines"][-1][0] < x2 and row["interval"] and y1 == y2 == height
    tops = [group["points"][0][1] for group in groups]
    assert tops == sorted(tops) and len(set(tops)) == len(rows), "the best on top, each in its own row"


def points(group: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[tuple[list[float], float]]:
    return zip(group["points"], row["scores"], strict=True)


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
    assert browser.until("document.querySelectorAll('#chips button').length") == 3
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


def three_knobs() -> dict[str, Any]:
    """The settings of an edge in three knobs, of which the last has no part in one of them, and one that failed."""
    names = ("r101", "r18")
    own, filled = lattice(names), Board("three")
    rate, heat = "recipe.lr", "LD.temperature"
    tried: list[Setting] = [
        ((heat, "5"), (WEIGHT, "1.0"), (rate, "0.001")),
        ((heat, "10"), (WEIGHT, "3.0"), (rate, "0.1")),
        ((heat, "20"), (WEIGHT, "2.0"), (rate, "0.01")),
        ((heat, "10"), (WEIGHT, "1.0")),
    ]
    for goal, setting in zip((0.4, 0.6, None, 0.45), tried, strict=True):
        path = Path(names, settings=(setting,))
        want(filled, own, path, 0)
        row = filled.rows[own.stage(path, 0).key]
        report_pages.learn(row, goal or 0.0, epochs=12)
        if goal is None:
            row.state, row.score = "failed", None
    knobs = sweep({heat: [5, 10, 20], WEIGHT: [1.0, 2.0, 3.0], rate: {"loguniform": [0.001, 0.1]}, "samples": 4})
    return summary(filled, names) | {"sweeps": swept(filled, knobs, (0,), "AP")}


@pytest.mark.parametrize("width", [1400, 360])
@pytest.mark.parametrize("made", [report_pages.searched, three_knobs])
def test_the_settings_of_one_knob_or_three_are_lines_from_knob_to_knob_to_the_score(
    browser: Browser, made: Callable[[], dict[str, Any]], width: int
) -> None:
    found = made()
    (edge,) = found["sweeps"]
    browser.show(render(found), width=width)
    browser.all_drawn()
    drawn = browser.run(
        """
        const number = (node, ...names) => names.map(name => node[name].baseVal.value);
        return {
          axes: [...document.querySelectorAll("#sweep line.axis")].map(x => number(x, "x1", "y1", "y2")),
          lines: [...document.querySelectorAll("#sweep polyline")].map(x => [...x.points].map(p => [p.x, p.y])),
          dots: [...document.querySelectorAll("#sweep circle")].map(x => [x.ariaLabel, ...number(x, "cx", "cy")]),
        };
        """
    )
    names = [axis["name"] for axis in edge["axes"]]
    assert len(drawn["axes"]) == len(names) + 1
    assert width < 1400 or browser.texts("#sweep text.strong") == [*names, "AP"]
    _, top, bottom = drawn["axes"][0]
    scores = [point["score"] for point in edge["points"] if point["score"] is not None]
    low, high = min(scores), max(scores)
    expected = []
    for point in edge["points"]:
        score = None if point["score"] is None else (point["score"] - low) / (high - low)
        places = [*(point["places"][name] for name in names), score]
        there = [(axis[0], place) for axis, place in zip(drawn["axes"], places, strict=True) if place is not None]
        expected.append([[x, bottom - place * (bottom - top)] for x, place in there])
    for line, one in zip(sorted(drawn["lines"]), sorted(expected), strict=True):
        assert [*chain(*line)] == pytest.approx([*chain(*one)], abs=0.06)
    dots = sorted([x, y] for _, x, y in drawn["dots"])
    assert [*chain(*dots)] == pytest.approx([*chain(*sorted(one[-1] for one in expected))], abs=0.06)
    (won,) = [point for point in edge["points"] if point["won"]]
    (told,) = [dot for dot in drawn["dots"] if ", the winner" in dot[0]]
    assert told[0].startswith(f"AP {won['score']:.3f}, the winner\ndone after {won['epochs']} epochs")
    assert all(f"{name} {text}" in told[0] for name, text in won["text"].items())
    assert told[2] == pytest.approx(top), "the best is on top"
    assert browser.said() == []


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
