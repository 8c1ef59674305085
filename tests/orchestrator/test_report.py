"""The page that people read: what it holds, that it stays text, and that it needs nothing from outside."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import expectations
from orchestrator.board import Board
from orchestrator.drawing import drawing
from orchestrator.drawn_lattice import count
from orchestrator.lattice import Path
from orchestrator.report import TURNS, render, write
from orchestrator.verdict import headline, verdict
from tests.orchestrator.boards import board, fail, summary, the_answer

VOID = {"meta", "link", "img", "br", "hr", "input"}
EVIL = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% endif %}",
    "a\"b'c&d<!--",
]


class Page(HTMLParser):
    """A page as tags, text by the tag around it, and table rows; checks that the tags close in order."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.text, self.rows, self.paragraphs = [], [], {}, [], []
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "p":
            self.paragraphs.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.stack[-1] if self.stack else "", []).append(data)
        if "p" in self.stack:
            self.paragraphs[-1] += data.replace("\u00a0", " ")
        if self.rows and ("td" in self.stack or "th" in self.stack):
            self.rows[-1][-1] += data.strip()

    def table(self, first):
        """The rows under the heading that starts with this cell, up to the next heading."""
        heads = [i for i, row in enumerate(self.rows) if row[0] in ("path", "stage", "model", "what")]
        start = next(i for i in heads if self.rows[i][0] == first)
        return self.rows[start + 1 : next((i for i in heads if i > start), None)]

    @property
    def data(self):
        return json.loads(self.text["script"][0])


def row(filled, *path):
    return next(r for r in filled.rows.values() if r.path == Path(path))


def test_the_answer_stands_on_top_and_the_ranking_and_the_stages_below_it():
    found = summary(board())
    page = Page(render(found))
    first = headline(found, the_answer(found), full=True)
    assert page.paragraphs[:3] == [first, *verdict(found)[1:]]
    assert first.startswith(verdict(found)[0][:-1]) and first.endswith(", for 8:48 of training.")
    assert [cells[0] for cells in page.table("path")] == [
        *(" > ".join(o["path"]) for o in the_answer(found)["ranking"]),
        "r18 alone",
    ]
    best, top = the_answer(found)["best"], page.table("path")[0]
    assert top[1:3] == [f"{best['score']:.3f}", f"{best['gain_over_baseline']:+.3f}"]
    assert len(page.table("stage")) == len(found["stages"]) == 9
    assert [cells[3] for cells in page.table("model")] == ["51.2 M", "32.3 M", "21.7 M", "11.6 M"]
    assert found["study_yaml"] in page.text["pre"]


def expecting(found, **measured):
    rows = [expectations.beside("r101 > r18", name, 36.5, value) for name, value in measured.items()]
    return found | {"expected": rows, "source": "<the> paper"}


def test_what_was_published_stands_beside_what_was_measured():
    page = Page(render(expecting(summary(board()), AP=0.375, AP50=None)))
    heads = next(i for i, row in enumerate(page.rows) if "published" in row)
    assert page.rows[heads] == ["path", "figure", "published", "measured", "difference"]
    assert page.rows[heads + 1 : heads + 3] == [
        ["r101 > r18", "AP", "36.50", "37.50", "+1.00"],
        ["r101 > r18", "AP50", "36.50", "", ""],
    ]
    assert any("Published: <the> paper" in text for text in page.text["p"])


def test_where_nothing_was_published_the_page_says_nothing_of_it():
    assert "ublished" not in render(summary(board())).split("<script")[0]


def test_both_files_are_written_and_say_the_same(tmp_path):
    found = summary(board())
    page = write(found, tmp_path / "new" / "folder")
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert json.loads((page.parent / "report.json").read_text()) == found
    assert sorted(f.name for f in page.parent.iterdir()) == ["report.html", "report.json"]


def test_a_report_that_cannot_be_rendered_leaves_the_old_page(tmp_path):
    page = write(summary(board()), tmp_path)
    before = page.read_text()
    broken = summary(board()) | {"seconds": "long"}
    with pytest.raises(TypeError):
        write(broken, tmp_path)
    assert page.read_text() == before


def test_the_page_asks_for_nothing_from_outside():
    html = render(summary(board()))
    page = Page(html)
    assert {a["href"] for tag, a in page.tags if tag == "link"} == {"data:,"}
    assert not [a for _, a in page.tags if "src" in a]
    assert re.findall(r"(?:https?:)?//[\w.]+\.\w+", html.replace("http://www.w3.org/2000/svg", "")) == []
    assert "default-src 'none'" in html


def hostile(names):
    filled = board(names, name=names[-1], epochs=3)
    fail(filled, Path((names[0], names[1])), f"RuntimeError: {names[0]}\nin step 3")
    return summary(filled, names)


def test_hostile_names_and_reasons_stay_text():
    found = hostile(EVIL)
    html = render(found)
    page = Page(html)
    plain = Page(render(summary(board(epochs=3))))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2
    assert html.count("</script>") == 2
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert [model["name"] for model in page.data["models"]] == EVIL
    assert page.table("path")[-1][0] == f"{EVIL[-1]} alone"
    assert page.text["h1"] == [EVIL[-1]]
    paths = [json.loads(a["data-path"]) for _, a in page.tags if "data-path" in a]
    assert paths == [o["path"] for o in the_answer(found)["ranking"]] + [[EVIL[-1]]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
        min_size=2,
        max_size=3,
        unique=True,
    )
)
def test_any_names_go_into_the_page_and_come_out_again(names):
    """But for what turns a line around, of which the number is written."""
    there = [model["name"] for model in Page(render(hostile(names))).data["models"]]
    assert there == [name.translate(TURNS) for name in names]


def test_a_reason_with_bytes_that_are_no_text_can_be_written(tmp_path):
    filled = board()
    fail(filled, Path(("r101", "r50")), "no such file: '\udcff.jpg'")
    assert "no such file" in write(summary(filled), tmp_path).read_text(encoding="utf-8")


def test_an_edge_on_the_best_path_shows_that_paths_own_score_and_others_their_best():
    filled = board()
    for path, score in (
        ("r101 r18", 0.1),
        ("r101 r50 r18", 0.2),
        ("r101 r34 r18", 0.9),
        ("r101 r50 r34 r18", 0.3),
    ):
        row(filled, *path.split()).score = score
    row(filled, "r101", "r34").score, row(filled, "r101", "r50", "r34").score = 0.6, 0.7
    edges = {tuple(edge["ends"]): edge for edge in drawing(summary(filled))["edges"]}
    assert [ends for ends, edge in edges.items() if edge["best"]] == [("r101", "r34"), ("r34", "r18")]
    assert edges["r34", "r18"]["score"] == 0.9 and len(edges["r34", "r18"]["paths"]) == 2
    assert edges["r50", "r34"]["score"] == 0.7


def test_a_failed_edge_and_a_lost_edge_are_told_apart():
    filled = board()
    fail(filled, Path(("r101", "r34")), "NaN")
    row(filled, "r101", "r50", "r34").state = "lost"
    found = drawing(summary(filled))
    states = {tuple(edge["ends"]): edge["state"] for edge in found["edges"]}
    assert states["r101", "r34"] == "failed" and states["r50", "r34"] == "lost" and states["r101", "r50"] == "done"
    assert next(model["state"] for model in found["models"] if model["name"] == "r34") == "failed"


def test_the_curves_hold_every_loss_and_the_validation_and_nothing_else():
    found = drawing(summary(board()))
    curves = {tuple(stage["path"]): stage["curves"] for stage in found["stages"]}
    assert set(curves["r101", "r18"]) == {
        "train/loss", "train/loss_LD", "train/loss_box", "train/loss_cls", "val/AP", "val/AP50",
    }  # fmt: skip
    assert "train/loss_LD" not in curves["r101",]


def test_an_epoch_that_was_not_validated_leaves_a_gap():
    filled = board()
    del row(filled, "r18").history[3]["val/AP"]
    alone = next(s for s in drawing(summary(filled))["stages"] if s["path"] == ["r18"])
    assert alone["curves"]["val/AP"][3] is None and alone["curves"]["val/AP"][4] is not None


def test_a_run_without_any_result_has_a_page():
    page = Page(render(summary(Board("empty"))))
    assert page.paragraphs[0] == "No path from r101 to r18 is trained to the end."
    assert page.data["points"] == [] and page.data["best"] == []


def test_a_run_without_the_student_alone_has_no_gains_to_show():
    filled = board()
    del filled.rows[row(filled, "r18").key]
    page = Page(render(summary(filled)))
    assert ["path", "AP", "over direct", "training time"] in page.rows


def test_a_search_of_512_stages_is_one_small_page():
    names = [f"m{i}" for i in range(10)]
    html = render(summary(board(names), names))
    page = Page(html)
    assert len(page.table("stage")) == 513 and len(page.table("path")) == 257
    assert len(html) < 1_500_000


@pytest.mark.parametrize(("number", "said"), [(None, ""), (512, "512"), (38_000, "38 k"), (51_200_000, "51.2 M")])
def test_a_count_is_short(number, said):
    assert count(number) == said
