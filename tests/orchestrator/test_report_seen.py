"""What detectors find in pictures, in the page: boxes over images, and the distributions of a box's edges."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.orchestrator import report_pages
from tests.orchestrator.boards import board
from tests.orchestrator.report_pages import STUDENTS, page
from tests.orchestrator.report_pictures import BINS, CLASSES, SIZES, found_by

if TYPE_CHECKING:
    from tests.orchestrator.browser import Browser

TAB, RIGHT, SPACE = "\ue004", "\ue014", " "
KINDS = ("right", "wrong", "missed", "neither")


@cache
def found() -> dict[str, Any]:
    return found_by(board(students=STUDENTS), report_pages.several())


def of(student: str) -> list[int]:
    """The panels that are shown of a student: its own, and the teacher's."""
    return [number for number, panel in enumerate(found()["panels"]) if panel["student"] in ("", student)]


def counts(student: str, least: float) -> dict[str, int]:
    """How many boxes of each kind are to be seen in all images."""
    made = dict.fromkeys(KINDS, 0)
    for image in found()["images"]:
        for number in of(student):
            sure = [box for box in image["found"][number] if box[4] >= least]
            right = {box[6] for box in sure if box[6] >= 0}
            made["right"] += len(right)
            made["wrong"] += sum(box[6] == -1 for box in sure)
            made["neither"] += sum(box[6] == -2 for box in sure)
            made["missed"] += len(image["truth"]) - len(right)
    return made


def drawn(browser: Browser) -> dict[str, int]:
    return browser.run(
        "return Object.fromEntries(arguments[0].map(kind => [kind,"
        " document.querySelectorAll(`#seen-images .seen-${kind}`).length]))",
        KINDS,
    )


def test_each_image_stands_there_with_the_truth_the_teacher_and_the_students_own(browser: Browser) -> None:
    browser.show(page("several"))
    assert browser.texts("#seen-images figcaption") == list(SIZES)
    assert browser.texts("#seen-images h3") == ["Where the student alone and distilled differ most", "Spread evenly"]
    titles = [found()["panels"][number]["title"] for number in of("r34")]
    assert browser.texts("#seen-images figure:first-of-type b") == ["Truth", "r101, the teacher", *titles[1:]]
    assert browser.texts("#seen-images .seen-panel > span")[0] == "3 objects"
    assert browser.texts("#seen-images .seen-panel > span")[1] == "0 right, 1 wrong, 3 missed"
    shown = browser.run(
        "return [...document.querySelectorAll('#seen img')].every(x => x.complete && x.naturalWidth > 0)"
    )
    assert shown and drawn(browser) == counts("r34", 0.4)
    ratios = browser.run(
        "return [...document.querySelectorAll('.seen-image .seen-frame:first-of-type')].map("
        "x => x.clientWidth / x.clientHeight)"
    )
    assert {round(ratio, 1) for ratio in ratios} == {round(width / height, 1) for width, height in SIZES.values()}
    assert browser.said() == []


def test_with_a_higher_score_fewer_are_found_and_more_are_missed(browser: Browser) -> None:
    browser.show(page("several"))
    seen = []
    for least in ("0.05", "0.55", "0.95"):
        browser.choose("#seen-least", least)
        assert browser.texts("#seen output") == [least.removeprefix("0")]
        assert drawn(browser) == counts("r34", float(least))
        seen.append(drawn(browser))
    assert all(now["missed"] > before["missed"] and now["right"] < before["right"] for before, now in pairwise(seen))


def test_what_is_right_wrong_missed_or_named_can_be_hidden(browser: Browser) -> None:
    browser.show(page("several"))
    whole = drawn(browser)
    for number, kind in enumerate(KINDS):
        browser.click(".seen-keys button", number)
        assert drawn(browser) == whole | {kind: 0}
        assert browser.run("return document.querySelectorAll('.seen-keys [aria-pressed=false]').length") == 1
        browser.click(".seen-keys button", number)
        assert drawn(browser) == whole
    assert browser.texts("#seen-images .seen-name")
    browser.click(".seen-keys [data-kind=names]")
    assert browser.texts("#seen-images .seen-name") == [] and drawn(browser) == whole


def test_with_the_keyboard_alone_the_score_is_moved_and_what_is_wrong_is_hidden(browser: Browser) -> None:
    browser.show(page("several"))
    browser.run("document.querySelector('#seen-of select').focus()")
    browser.press(TAB, RIGHT)
    assert browser.texts("#seen output") == [".41"]
    browser.press(TAB, TAB, SPACE)
    assert drawn(browser) == counts("r34", 0.41) | {"wrong": 0}


def test_another_student_has_its_own_panels_and_its_own_lines(browser: Browser) -> None:
    browser.show(page("several"))
    for student in ("r18", "r34"):
        browser.choose("#seen-of select", student)
        titles = [found()["panels"][number]["title"] for number in of(student)]
        assert browser.texts("#seen-images figure:first-of-type b")[2:] == titles[1:]
        assert drawn(browser) == counts(student, 0.4)
        assert browser.texts(".seen-lines li") == [
            "r101, the teacher",
            *(f"{title}: {0.04 * number:.3f}" for title, number in zip(titles[1:], of(student)[1:], strict=True)),
            "truth",
        ]


def test_of_each_edge_the_teacher_is_bars_the_others_are_lines_and_the_truth_a_mark(browser: Browser) -> None:
    browser.show(page("several"))
    assert browser.texts(".seen-charts .seen-side") == ["left", "top", "right", "bottom"]
    parts = browser.run(
        "const count = (x, ...tags) => tags.map(tag => x.querySelectorAll(tag).length);"
        "return [...document.querySelectorAll('.seen-charts svg')].map(x => count(x, 'rect', 'path', 'line'))"
    )
    others = len(of("r34")) - 1
    assert parts == [[BINS, others, 2]] * 3 + [[BINS, others, 1]], "what is further off than there are bins has no mark"
    bars = "[...document.querySelectorAll('.seen-charts svg:first-child rect')].map(x => x.height.baseVal.value)"
    tall = browser.run(f"return {bars}")
    assert tall.index(max(tall)) == 4, "where the teacher believes it"
    assert browser.run("return document.querySelectorAll('#seen-box g').length") == 1 + len(of("r34"))
    assert browser.texts("#seen-box .seen-name") == ["person"]


def test_a_box_that_is_pointed_at_says_what_it_is_and_shows_who_else_found_it(browser: Browser) -> None:
    browser.show(page("several"))
    browser.click("#seen-images .seen-right")
    assert browser.texts(".seen-tip") == ["person .43, right"]
    on = browser.run("return [...document.querySelectorAll('.seen-on')].map(x => x.dataset.object)")
    assert on == ["0"] * (1 + len(of("r34"))), "in the truth and by each detector"
    assert browser.run("return document.querySelectorAll('.seen-image:first-of-type .seen-on').length") == len(on)
    browser.click("#h-seen")
    assert browser.texts(".seen-tip") == []


def test_names_stay_text_and_lie_on_no_other(browser: Browser) -> None:
    browser.show(page("several"), width=390, height=844)
    assert {CLASSES[1], CLASSES[2]} < set(browser.texts("#seen-images .seen-name"))
    told = browser.run("return document.querySelector('#seen-images svg').ariaLabel")
    assert told == f"Truth: {'; '.join(CLASSES)}"
    clashes = browser.run(
        """
        const place = node => node.getBoundingClientRect();
        const along = (a, b) => a.left < b.right - 1 && b.left < a.right - 1;
        const over = (a, b) => along(a, b) && a.top < b.bottom - 1 && b.top < a.bottom - 1;
        const across = (a, b) => a.left > b.left - 1 && a.right < b.right + 1;
        const inside = (a, b) => across(a, b) && a.top > b.top - 1 && a.bottom < b.bottom + 1;
        return [...document.querySelectorAll(".seen-frame")].flatMap(frame => {
          const all = [...frame.querySelectorAll(".seen-name")].map(place);
          return all.filter((one, i) => !inside(one, place(frame)) || all.slice(i + 1).some(other => over(one, other)));
        }).map(one => one.toJSON());
        """
    )
    assert clashes == []
    assert browser.said() == []
