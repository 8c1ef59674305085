"""The page in a real browser: it renders, answers to mouse, keyboard and finger, and keeps text text."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from orchestrator.report import render
from tests.orchestrator import report_pages
from tests.orchestrator.boards import board, fail, summary, the_answer
from tests.orchestrator.report_pages import page
from tests.orchestrator.test_report import EVIL

if TYPE_CHECKING:
    from tests.orchestrator.browser import Browser

TAB, ENTER, ESCAPE, RIGHT = "\ue004", "\ue007", "\ue00c", "\ue014"  # as WebDriver writes them
STUDIES = pytest.mark.parametrize("study", report_pages.STUDIES)
DRAWN = "document.querySelectorAll('#curves polyline').length"


@STUDIES
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_opens_from_a_file_without_a_word_in_the_console_and_asks_for_nothing(
    browser: Browser, study: str, dark: bool
) -> None:
    browser.show(page(study), dark=dark)
    browser.all_drawn()
    assert browser.run("return document.readyState") == "complete"
    assert browser.said() == []
    assert browser.loaded() == [browser.uri]


def test_what_is_wrong_with_a_page_would_be_heard(browser: Browser) -> None:
    browser.show(page("nothing").replace('"use strict";', 'fetch("https://example.org/x"); nobody();'))
    said = browser.said()
    assert any("Content Security Policy" in line for line in said) and any("nobody is not defined" in o for o in said)


def test_the_question_and_the_answer_come_first(browser: Browser) -> None:
    browser.show(page("seeded"))
    best = the_answer(report_pages.seeded())["best"]
    (asked,), (said,) = browser.texts(".question"), browser.texts(".answer")
    assert asked == "What is the best way to teach r18 what r101 knows?"
    low, high = best["interval"]
    assert f"{' > '.join(best['path'])}: AP {best['score']:.3f} ({low:.3f} to {high:.3f})" in said
    assert f"{best['gain_over_baseline']:+.3f} over r18 alone" in said and said.endswith("for 8:48 of training.")
    assert browser.texts(".answer strong") == [" > ".join(best["path"])]
    assert browser.run("return document.querySelector('.figures').getBoundingClientRect().bottom < innerHeight")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("study", ["broken", "several"])
def test_all_text_stands_out_from_the_page_by_day_and_by_night(browser: Browser, study: str, dark: bool) -> None:
    browser.show(page(study), dark=dark)
    browser.all_drawn()
    browser.click("[data-model=r18]")
    found = browser.run(
        """
        const light = colour => {
          const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
        };
        const page = light(getComputedStyle(document.body).backgroundColor);
        const texts = "h1, h2, h3, p, td, th, dt, dd, a, b, span, button, label, output, figcaption, svg text, li";
        const least = [...document.querySelectorAll(texts)].map(node => {
          const style = getComputedStyle(node), own = light(node.tagName === "text" ? style.fill : style.color);
          return [(Math.max(own, page) + 0.05) / (Math.min(own, page) + 0.05), node.outerHTML.slice(0, 80)];
        }).sort((a, b) => a[0] - b[0])[0];
        return {page, least};
        """
    )
    assert (found["page"] < 0.05) is dark
    assert found["least"][0] >= 4.5, found["least"]  # what WCAG asks of text


def test_with_the_keyboard_alone_a_model_is_reached_opened_read_and_left(browser: Browser) -> None:
    browser.show(page("seeded"))
    for _ in range(40):
        browser.press(TAB)
        if browser.run("return document.activeElement.dataset.model") == "r50":
            break
    outline = browser.run("const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]")
    assert outline == ["solid", "2px"], "one sees where one is"
    browser.press(ENTER)
    assert browser.run(
        "const d = document.querySelector('dialog'); return d.open && d.contains(document.activeElement)"
    )
    for _ in range(40):
        browser.press(TAB)
        if browser.run("return document.activeElement.tagName") == "svg":
            break
    browser.press(RIGHT)
    assert browser.texts("dialog .tip")[0].startswith("epoch 12")
    browser.press(ESCAPE)
    assert not browser.run("return document.querySelector('dialog').open")
    assert browser.run("return document.activeElement.dataset.model") == "r50"


def test_whatever_can_be_pressed_has_a_name_and_every_section_a_heading(browser: Browser) -> None:
    for study in report_pages.STUDIES:
        browser.show(page(study))
        browser.all_drawn()
        if study != "nothing":
            browser.click("[data-model]")
        nameless = """return [...document.querySelectorAll("button, a, select, [tabindex='0']")].filter(x =>
            !(x.ariaLabel || x.textContent.trim() || x.labels?.length)).map(x => x.outerHTML.slice(0, 99))"""
        assert browser.run(nameless) == []
        headless = """return [...document.querySelectorAll("section, dialog")].filter(x =>
            !document.getElementById(x.getAttribute("aria-labelledby"))).length - (arguments[0] ? 1 : 0)"""
        assert browser.run(headless, study == "nothing") == 0
        sections = browser.run(
            "return [...document.querySelectorAll('main > section:not([hidden]) h2')].map(x => '#' + x.id)"
        )
        assert (
            browser.run("return [...document.querySelectorAll('nav a')].map(x => x.getAttribute('href'))") == sections
        )


@STUDIES
@pytest.mark.parametrize("width", [360, 900])
def test_on_a_phone_nothing_is_wider_than_the_window(browser: Browser, study: str, width: int) -> None:
    browser.show(page(study), width=width, height=740)
    browser.all_drawn()
    assert browser.run("return document.documentElement.scrollWidth") <= width
    if study != "nothing":
        browser.click("[data-model]")
        assert browser.run("return document.querySelector('dialog').scrollWidth") <= width
    assert browser.said() == []


TURNED = "r\u202e81\u2066"


def test_hostile_names_stay_text(browser: Browser) -> None:
    names = [*EVIL, TURNED]
    filled = board(names, name="hostile", epochs=3)
    fail(filled, next(row.path for row in filled.rows.values() if len(row.path.models) == 2), EVIL[0] + TURNED)
    browser.show(render(summary(filled, names)))
    browser.all_drawn()
    said = [
        label.rsplit(", AP ", 1)[0]
        for label in browser.run("return [...document.querySelectorAll('[data-model]')].map(x => x.ariaLabel)")
    ]
    assert said[:4] == [name for name in EVIL] and said[4].startswith("r\\u202e81\\u2066")
    for number in range(5):
        browser.run(
            "document.querySelectorAll('[data-model]')[arguments[0]].dispatchEvent(new MouseEvent('click'))", number
        )
        assert browser.texts("dialog h2") == [(*EVIL, "r\\u202e81\\u2066")[number].strip()]
        browser.press(ESCAPE)
    assert browser.run("return document.querySelectorAll('img, script[src], iframe').length") == 0
    assert browser.run("return document.scripts.length") == 2
    assert "\u202e" not in browser.run("return document.documentElement.outerHTML")
    assert browser.said() == []


def test_it_prints_with_every_picture_and_in_black_on_white(browser: Browser) -> None:
    browser.show(page("seeded"), dark=True)
    assert browser.run(f"return {DRAWN}") == 0
    printed = browser.command("Page.printToPDF", printBackground=True)
    assert printed["data"].startswith("JVBERi0"), "%PDF-"
    assert browser.run(f"return {DRAWN}") > 0
    browser.command("Emulation.setEmulatedMedia", media="print", features=[])
    hidden = (
        "return [...document.querySelectorAll('nav, .take, .tools')].every(x => getComputedStyle(x).display === 'none')"
    )
    assert browser.run(hidden)
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_how_to_reproduce_it_is_told_as_far_as_it_is_known(browser: Browser) -> None:
    found = report_pages.seeded()
    browser.show(page("seeded"))
    assert browser.texts(".steps pre")[:2] == ["tapath run voc-gfl.yaml", report_pages.MADE["command"]]
    assert browser.run("return document.querySelector('.yaml').textContent") == found["study_yaml"]
    told = browser.texts(".steps dl div")
    assert "torch2.9.1" in told and f"commit of the sources{report_pages.MADE['commit']}, changed since" in told
    browser.show(page("broken"))
    assert browser.texts(".steps dl div") == [] and browser.texts(".steps pre")[0] == "tapath run voc-gfl.yaml"


def test_each_of_several_studies_is_told_and_taken_along_with_its_own_name_command_and_yaml(browser: Browser) -> None:
    parts = [
        {"study": "voc", "study_yaml": "name: voc\nseeds: [0]\n", "made": report_pages.MADE},
        {"study": "it's; two", "study_yaml": "name: two\nseeds: [1]\n", "made": None},
    ]
    several = {"study": "voc + it's; two", "study_yaml": "", "made": None, "studies": parts}
    browser.show(render(report_pages.seeded() | several))
    told = browser.run(
        "const texts = part => [...part.querySelectorAll('pre')].map(x => x.textContent);"
        "return [...document.querySelectorAll('.again')].map(texts)"
    )
    assert told == [
        ["tapath run voc.yaml", report_pages.MADE["command"], parts[0]["study_yaml"]],
        [told[1][0], parts[1]["study_yaml"]],
    ]
    assert shlex.split(told[1][0]) == ["tapath", "run", "it's; two.yaml"], "as a shell reads it"
    heads = ["Command of voc", "Versions of voc", "Study voc, with what was set from the command line"]
    assert browser.texts(".again h3") == [*heads, "Command of it's; two", "Study it's; two"]
    taken = {file.name: file.read_text() for file in browser.take_all("#everything button") if file.suffix == ".yaml"}
    assert sorted(taken.values()) == [part["study_yaml"] for part in reversed(parts)]
    assert browser.said() == []


def test_pictures_follow_the_width_of_the_window(browser: Browser) -> None:
    browser.show(page("seeded"), width=1400)
    wide = browser.run("return document.querySelector('#lattice svg').clientWidth")
    browser.command("Emulation.setDeviceMetricsOverride", width=500, height=900, deviceScaleFactor=1, mobile=False)
    browser.until("document.querySelector('#lattice svg').clientWidth < arguments[0] / 2", wide)
