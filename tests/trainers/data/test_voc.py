"""VOC is read from files in its true format, and what is missing, wrong or hostile in them is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.trainers.data.voc_files import thing, write_digits, write_part, xml
from trainers import data as datasets
from trainers.call import Call, Invalid
from trainers.data import VOC, Digits
from trainers.data.voc import VOC_NAMES, named_in
from trainers.data.voc_xml import read

TWO = thing("dog", (10, 5, 20, 25)) + thing("person", (1, 1, 48, 32), difficult=1)
ALL: Any = {"train": ["2007 trainval", "2012 trainval"], "val": "2007 test", "test": None}
BEFORE = "1e6a03c6263de89e78105453c9b8b2d7b81cc3f3e07f3a8921b82e05167080a1"  # the fingerprint of `root`


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One image in each part of "07+12", two in the test."""
    devkit = tmp_path / "VOCdevkit"
    write_part(devkit, "2007", "trainval", {"000005": xml(TWO, name="000005")})
    write_part(devkit, "2012", "trainval", {"2008_000008": xml(thing("cat", (2, 2, 9, 9)), name="2008_000008")})
    write_part(devkit, "2007", "test", {name: xml(TWO, name=name) for name in ("000001", "000002")})
    return devkit


def note(root: Path) -> Path:
    return root / "VOC2007/Annotations/000005.xml"


def test_both_years_are_trained_on_and_2007_is_the_test(root: Path) -> None:
    data = VOC(root=str(root))
    assert data.classes == VOC.names() == VOC_NAMES and len(set(VOC_NAMES)) == 20
    assert [image["file_name"] for image in data.train.coco["images"]] == [
        "VOC2007/JPEGImages/000005.jpg",
        "VOC2012/JPEGImages/2008_000008.jpg",
    ]
    assert len(data.val) == 2 and data.metric.name == "VocAP"
    assert VOC(root=str(root.parent)).fingerprint == data.fingerprint  # the folder above will do


def test_images_are_decoded_whole(root: Path) -> None:
    with Image.open(root / "VOC2012/JPEGImages/2008_000008.jpg") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(VOC(root=str(root)).train.read(1), pixels)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpeg", ".JPG"])
def test_an_image_of_ones_own_may_be_called_otherwise(root: Path, suffix: str) -> None:
    image = root / "VOC2012/JPEGImages/2008_000008.jpg"
    with Image.open(image) as opened:
        opened.save(image.with_suffix(suffix))
    assert VOC(root=str(root)).train.coco["images"][1]["file_name"].endswith(".jpg")  # of both this one counts
    image.unlink()
    data = VOC(root=str(root))
    assert data.train.coco["images"][1]["file_name"] == f"VOC2012/JPEGImages/2008_000008{suffix}"
    assert data.train.read(1).shape == (3, 32, 48)
    assert f"VOCdevkit/VOC2012/JPEGImages/2008_000008{suffix}" in [*VOC.files(root=str(root.parent), **ALL)]


def test_corners_are_counted_from_one_and_the_last_column_and_row_are_cut_off(root: Path) -> None:
    data = VOC(root=str(root))
    assert data.train.boxes(0).tolist() == [[9, 4, 19, 24]]
    assert data.train.labels(0).tolist() == [VOC_NAMES.index("dog")]
    assert data.train.rows.area.tolist() == [200, 47 * 31, 49]


def test_difficult_objects_are_ignored_or_trained_on_and_ignored_in_validation_always(root: Path) -> None:
    data, more = VOC(root=str(root)), VOC(root=str(root), use_difficult=True)
    assert data.train.rows.ignore.sum() == 1 and not more.train.rows.ignore.any()
    assert sorted(more.train.boxes(0).tolist()) == [[0, 0, 47, 31], [9, 4, 19, 24]]
    for each in (data, more):
        assert each.val.rows.ignore.tolist().count(True) == 2 and len(each.val.boxes(0)) == 1
    assert data.fingerprint != more.fingerprint


def test_other_parts_can_be_given(root: Path) -> None:
    write_part(root, "2007", "train", {"000005": xml(TWO)})
    write_part(root, "3000", "mine", {"a": xml(TWO), "b": xml(TWO)})
    data = VOC(root=str(root), train=["2007 train"], val="3000 mine")
    assert len(data.train) == 1 and len(data.val) == 2
    with pytest.raises(Invalid, match=r"no folder .*VOC2010: 2010 is not one of 2007, 2012, 3000; did you mean"):
        VOC(root=str(root), val="2010 test")
    with pytest.raises(Invalid, match=r"testt is not one of test, train, trainval; did you mean test\?"):
        VOC(root=str(root), val="2007 testt")
    for wrong in ("2007", "2007 ../../x", "../2007 test", "2007  test", ""):
        with pytest.raises(Invalid, match="is no year and part"):
            VOC(root=str(root), val=wrong)
    for parts in ([], ["2007 train", "2007 train"]):
        with pytest.raises(Invalid, match="one or more parts, each once"):
            VOC(root=str(root), train=parts)
    with pytest.raises(Invalid, match=r"no folder .*nowhere"):
        VOC(root=str(root / "nowhere"))


OWN = thing("helmet", (10, 5, 20, 25)) + thing("vest", (1, 1, 48, 32))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Own classes in VOC's layout."""
    for part in ("trainval", "test"):
        write_part(tmp_path / "site", "MINE", part, {f"{part}1": xml(OWN)})
    return tmp_path / "site"


def test_own_classes_are_named_in_the_order_of_their_labels(site: Path) -> None:
    parts: dict[str, Any] = {"train": ["MINE trainval"], "val": "MINE test"}
    data = VOC(root=str(site), **parts, classes=["vest", "helmet"])
    assert data.classes == VOC.names(classes=["vest", "helmet"]) == ("vest", "helmet")
    assert dict(zip(data.train.labels(0).tolist(), data.train.boxes(0).tolist(), strict=True)) == {
        0: [0, 0, 47, 31],
        1: [9, 4, 19, 24],
    }
    turned = VOC(root=str(site), **parts, classes=["helmet", "vest"])
    assert turned.classes == ("helmet", "vest") and turned.fingerprint != data.fingerprint
    assert named_in(root=str(site), **parts) == {"helmet", "vest"}


def test_a_name_that_is_no_class_is_refused_with_the_knob(site: Path) -> None:
    parts: dict[str, Any] = {"train": ["MINE trainval"], "val": "MINE test"}
    for classes in (None, ["vest"]):
        with pytest.raises(Invalid, match=r"object 1 has no name that is known: helmet is not one of .*knob `classes`"):
            VOC(root=str(site), **parts, classes=classes)
    for wrong in ([], ["vest", "vest"], ["vest", ""], [" vest"]):
        with pytest.raises(Invalid, match="are not one or more names, each once") as error:
            VOC(root=str(site), **parts, classes=wrong)
        assert error.value.where == ("classes",)


def test_without_own_classes_a_study_and_its_data_are_what_they_were(root: Path) -> None:
    """`BEFORE` was made when there could be none."""
    data = VOC(root=str(root))
    assert data.fingerprint == BEFORE == VOC(root=str(root), classes=list(VOC_NAMES)).fingerprint
    categories = [{"id": k, "name": name} for k, name in enumerate(VOC_NAMES, start=1)]
    assert data.train.coco["categories"] == data.val.coco["categories"] == categories
    assert [row["category_id"] for row in data.train.coco["annotations"]] == [12, 15, 8]  # dog, person, cat
    call = Call(name="VOC", args={"root": str(root), "classes": None}).complete(datasets)
    assert set(call.args) == {"root", "train", "val", "test", "use_difficult", "metric"}


def test_the_same_files_are_read_once_and_a_changed_list_again(root: Path) -> None:
    one = VOC(root=str(root))
    assert VOC(root=str(root)).train is one.train
    (root / "VOC2007/ImageSets/Main/trainval.txt").write_text("000001\n000002\n")
    assert len(VOC(root=str(root)).train) == 3


def test_a_missing_size_is_read_from_the_image(root: Path) -> None:
    for size in (None, (0, 0)):
        note(root).write_text(xml(TWO, size=size))
        (root / "VOC2007/Annotations/touched").touch(exist_ok=False)
        assert VOC(root=str(root)).train.sizes[0] == (32, 48)
        (root / "VOC2007/Annotations/touched").unlink()
    (root / "VOC2007/JPEGImages/000005.jpg").write_bytes(b"no image")
    with pytest.raises(Invalid, match=r"cannot read the image .*000005\.jpg"):
        VOC(root=str(root))


def test_a_size_that_is_not_the_images_is_found_when_it_is_read(root: Path) -> None:
    note(root).write_text(xml(TWO, size=(49, 33)))
    with pytest.raises(Invalid, match=r"000005\.jpg has 48 x 32 pixels, its annotations say 49 x 33"):
        VOC(root=str(root)).train.read(0)


def test_corners_with_fractions_are_kept_as_voc_itself_has_some(root: Path) -> None:
    note(root).write_text(xml(thing("dog", (45.5, " 10.25 ", "46.75", "1.1e1"))))
    assert VOC(root=str(root)).train.boxes(0).tolist() == [[44.5, 9.25, 45.75, 10]]


def test_a_box_may_reach_a_pixel_out_of_its_image(root: Path) -> None:
    note(root).write_text(xml(thing("dog", (0, 0, 49, 33))))
    assert VOC(root=str(root)).train.boxes(0).tolist() == [[0, 0, 48, 32]]


BILLION_LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;">]>
<annotation><object><name>&lol2;</name></object></annotation>"""

WRONG = [
    (BILLION_LAUGHS, "000005.xml declares a document type or entities"),
    ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "declares a document type"),
    ("<!doctype html><html></html>", "declares a document type"),
    ("", "is not XML"),
    ("<annotation><object></annotation>", "is not XML: mismatched tag"),
    ("<annotation>&lol;</annotation>", "is not XML: undefined entity"),
    ("\0<annotation/>", "is not XML"),
    ("<html><body/></html>", "holds <html> instead of <annotation>"),
    (" " * (1 << 20) + "<annotation/>", "has more than 1,048,576 bytes"),
    (xml(TWO, size=(-4, 3)), "has the size '-4', '3', not two whole numbers"),
    (xml(TWO, size=("x", 3)), "has the size 'x', '3', not two whole numbers"),
    (xml(TWO, size=("nan", 3)), "has the size 'nan', '3', not two whole numbers"),
    (xml(TWO, size=(10**5, 10**5)), "has the size 100000 x 100000: more than"),
    (xml(thing("dgo", (1, 1, 5, 5))), r"object 1 has no name that is known: dgo is not one of .*; did you mean dog\?"),
    (xml("<object><name/></object>"), "object 1 has no name that is known"),
    (xml(TWO + "<object><name>dog</name></object>"), r"object 3 \(dog\) has a bndbox that is no four finite numbers"),
    (xml(thing("dog", (1, "left", 5, 5))), r"object 1 \(dog\) has a bndbox .*ymin 'left'"),
    (xml(thing("dog", (1, 1, "inf", 5))), r"object 1 \(dog\) has a bndbox .*xmax 'inf'"),
    (xml(thing("dog", (1, 1, 5, "nan"))), r"object 1 \(dog\) has a bndbox .*ymax 'nan'"),
    (xml(thing("dog", (5, 1, 2, 5))), r"object 1 \(dog\) has reversed corners or no area: x from 5 to 2"),
    (xml(thing("dog", (1, 9, 5, 2))), "reversed corners or no area: x from 1 to 5, y from 9 to 2"),
    (xml(thing("dog", (5, 1, 5, 5))), "reversed corners or no area"),
    (xml(thing("dog", (1, 1, 50, 5))), "object 1 leaves the image of 48 x 32 pixels: x from 1 to 50"),
    (xml(thing("dog", (1, 1, 5, 34))), "object 1 leaves the image of 48 x 32 pixels"),
    (xml(thing("dog", (-1, 1, 5, 5))), "object 1 leaves the image"),
    (xml(thing("dog", (1, 1, 5, 5), difficult="maybe")), r"\(dog\) has difficult 'maybe', neither 0 nor 1"),
]


@pytest.mark.parametrize(("page", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_mistake_in_an_annotation_is_refused_with_its_file(root: Path, page: str, said: str) -> None:
    note(root).write_text(page)
    with pytest.raises(Invalid, match=said) as error:
        VOC(root=str(root))
    assert "000005.xml" in str(error.value) and "Annotations" in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_hides_no_entities(root: Path, encoding: str) -> None:
    note(root).write_bytes(BILLION_LAUGHS.replace("1.0", f'1.0" encoding="{encoding}').encode(encoding))
    with pytest.raises(Invalid, match=r"000005\.xml"):
        VOC(root=str(root))


def test_a_mark_of_the_encoding_and_a_name_in_latin_1_do_not_matter(root: Path) -> None:
    raw = xml(TWO).replace("somebody", "Andr\xe9").encode("latin-1")
    for page in (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + raw, b"\xef\xbb\xbf" + xml(TWO).encode()):
        note(root).write_bytes(page)
        assert [found.name for found in read(note(root), VOC_NAMES).objects] == ["dog", "person"]


def test_nesting_to_any_depth_is_no_matter(root: Path) -> None:
    depth = 100_000
    note(root).write_text(f"<annotation>{'<a>' * depth}{'</a>' * depth}</annotation>")
    assert read(note(root), VOC_NAMES).objects == []


def test_ten_mistakes_are_listed_and_the_rest_counted(root: Path) -> None:
    pages = {f"{n:06d}": xml(thing("dog", (5, 5, 2, 2))) for n in range(14)}
    write_part(root, "2007", "trainval", pages)
    with pytest.raises(Invalid) as error:
        VOC(root=str(root))
    text = str(error.value)
    assert "000009.xml object 1" in text and "000010.xml" not in text and "4 more, 14 in all" in text


def test_a_list_that_names_a_missing_image_or_annotation_is_refused(root: Path) -> None:
    (root / "VOC2007/JPEGImages/000002.jpg").rename(root / "VOC2007/JPEGImages/000002.bmp")
    with pytest.raises(Invalid, match=r"images that .*test\.txt lists .*: 000002\.jpg"):
        VOC(root=str(root))
    (root / "VOC2007/JPEGImages/000002.bmp").rename(root / "VOC2007/JPEGImages/000002.jpg")
    (root / "VOC2007/Annotations/000001.xml").unlink()
    with pytest.raises(Invalid, match=r"annotations of .*test\.txt that are not in .*Annotations: 000001\.xml"):
        VOC(root=str(root))


LISTS = [
    ("../../secret\n", r"trainval\.txt: line 1: '\.\./\.\./secret' leaves the folder"),
    ("000005\n/etc/passwd\n", "line 2: '/etc/passwd' leaves the folder"),
    ("000005\n\n000005\n", "line 3: 000005 is there already, in line 1"),
    ("000005 -1\n", "line 1: '000005 -1' is more than a name"),
    ("a\\b\n", "has a backslash"),
    ("\n \n", "lists no image"),
    ("\udcff", "cannot read .*trainval"),
]


@pytest.mark.parametrize(("text", "said"), LISTS, ids=[said for _, said in LISTS])
def test_a_list_with_anything_but_names_once_each_is_refused(root: Path, text: str, said: str) -> None:
    (root / "VOC2007/ImageSets/Main/trainval.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Invalid, match=said):
        VOC(root=str(root))


def test_a_test_with_difficult_objects_only_is_refused(root: Path) -> None:
    for name in ("000001", "000002"):
        (root / f"VOC2007/Annotations/{name}.xml").write_text(xml(thing("dog", (1, 1, 5, 5), difficult=1)))
    with pytest.raises(Invalid, match="VOC2007 test has no object to measure on"):
        VOC(root=str(root))


def test_a_folder_that_is_missing_is_named(root: Path) -> None:
    (root / "VOC2012/Annotations").rename(root / "VOC2012/Notes")
    with pytest.raises(Invalid, match=r"there is no folder .*VOC2012/Annotations"):
        VOC(root=str(root))


def test_the_digits_written_as_voc_are_the_same_scenes(tmp_path: Path) -> None:
    digits = Digits(train=5, val=3)
    write_digits(tmp_path, digits)
    data = VOC(root=str(tmp_path))
    for ours, theirs in ((data.train, digits.train), (data.val, digits.val)):
        assert len(ours) == len(theirs)
        for index in range(len(ours)):
            assert torch.equal(ours.boxes(index), theirs.boxes(index))
            assert torch.equal(ours.labels(index), theirs.labels(index))
            assert (ours.read(index).float() - theirs.read(index)).abs().mean() < 8  # JPEG


page_bytes = st.one_of(
    st.binary(max_size=200),
    st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=4)).map(
        lambda change: xml(TWO).encode()[: change[0]] + change[1] + xml(TWO).encode()[change[0] + len(change[1]) :]
    ),
)


@settings(deadline=None, max_examples=300)
@given(page_bytes)
def test_whatever_a_file_holds_it_ends_in_boxes_or_a_refusal(tmp_path_factory: Any, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "page.xml"
    path.write_bytes(raw)
    try:
        sheet = read(path, VOC_NAMES)
    except Invalid:
        return
    for found in sheet.objects:
        assert found.name in VOC_NAMES and np.isfinite(found.corners).all()
        assert found.corners[2] > found.corners[0] and found.corners[3] > found.corners[1]
