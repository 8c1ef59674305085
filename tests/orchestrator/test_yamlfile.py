"""Reading YAML: plain data with lines, and a refusal that names the line for everything else."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import yamlfile
from trainers.call import Invalid


def refused(text: str) -> str:
    with pytest.raises(Invalid) as caught:
        yamlfile.parse(text, "demo.yaml")
    return str(caught.value)


def tree(text: str):
    return yamlfile.parse(text, "demo.yaml").tree


def test_each_key_and_item_has_its_line():
    document = yamlfile.parse("a: 1\n\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", "demo.yaml")
    assert document.tree == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    assert document.places == {
        (): "demo.yaml:1",
        ("a",): "demo.yaml:1",
        ("b",): "demo.yaml:3",
        ("b", 0): "demo.yaml:4",
        ("b", 1): "demo.yaml:5",
        ("b", 1, "c"): "demo.yaml:5",
        ("b", 1, "d"): "demo.yaml:6",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E+3", 1000),
        ("6.0", 6),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("5.", 5),
        ("+3", 3),
        ("1e300", 1e300),
        ("9007199254740992", 2**53),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("''", ""),
        ("'12'", "12"),
        ('"no"', "no"),
        ('"nan"', "nan"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("07+12", "07+12"),
        ("y", "y"),
        ("information", "information"),
        ("$HOME", "$HOME"),
        ('"\\ud83d\\ude00"', "\U0001f600"),  # an escape of JSON, which YAML includes
    ],
)
def test_a_scalar_is_what_people_mean_by_it(text, value):
    found = tree(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "No", "OFF"])
def test_old_booleans_are_refused_with_the_way_to_write_either_meaning(word):
    message = refused(f"a: 1\nb: [x, {word}]")
    assert message.startswith(f"demo.yaml:2: b.1: {word} is a boolean") and f'"{word}"' in message
    assert "write true" in message or "write false" in message


@pytest.mark.parametrize("word", [".nan", ".inf", "-.INF", "nan", "inf", "Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(word):
    message = refused(f"a:\n  lr: {word}")
    assert message.startswith("demo.yaml:2: a.lr: ") and "finite" in message


def test_integers_that_are_not_exact_everywhere_are_refused():
    assert "too large; integers go up to 9007199254740992" in refused("a: 9007199254740993")
    assert refused("a: " + "9" * 10_000).startswith("demo.yaml:1: a: 99999")


@pytest.mark.parametrize(
    ("key", "kind"),
    [("18", "a number"), ("1e3", "a number"), ("true", "a boolean"), ("null", "nothing")],
)
def test_a_key_that_is_no_word_is_refused_with_the_advice_to_quote_it(key, kind):
    message = refused(f"models:\n  big: 1\n  {key}: 2")
    assert message.startswith(f"demo.yaml:3: models: the key {key} is {kind}")
    assert f'quote it: "{key}"' in message
    assert tree(f'"{key}": 2') == {key: 2}


def test_an_old_boolean_as_a_key_is_refused():
    assert refused("a: 1\non: 2").startswith("demo.yaml:2: on is a boolean")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\na: 2", 2, "a: this key is here twice, first at demo.yaml:1; remove one"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", 4, "a.b: this key is here twice, first at demo.yaml:2"),
        ("a:\n- {b: 1,\n   b: 2}", 3, "a.0.b: this key is here twice"),
        ("a: 1\n'a': 2", 2, "a: this key is here twice"),
        ("a:\n\tb: 1", 2, "indent with spaces, not tabs"),
        ("a: 1\n---\nb: 2", 2, "a second document starts here; a file holds one"),
        ("a: [1, 2", 1, "not YAML at column"),
        ("a: b: c", 1, "not YAML at column 5: mapping values are not allowed here"),
        ("a: 1\n b: 2", 2, "not YAML at column"),
        ("a: 'x", 1, "not YAML at column"),
        ("a: 1\nb: @x", 2, "not YAML at column 4"),
        ("? [a]\n: 1", 1, "a key must be a word, not a list or a mapping"),
        ("a:\n  ? {b: 1}\n  : 1", 2, "a: a key must be a word"),
        ("a: {b: 1}\nc:\n  <<: {d: 1}", 3, "c: merge keys (<<) are not read; repeat the keys"),
        ("a: 1\nb: *x", 2, "*x names nothing that ends before it"),
        ("a: &x [1, *x]", 1, "*x names nothing that ends before it"),
        ("a: 1\nb: \x07", 2, "U+0007"),
        ('a: 1\nb: "\\e[31m"', 2, "b: the character U+001B has no place here"),
        ('a: "\\ud800"', 1, "a: the character U+D800 has no place here"),
        ('a: "\\UFFFFFFFF"', 1, "not YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", 1, "not YAML"),
        ("a: !!int 5", 1, "the tag tag:yaml.org,2002:int is not obeyed; write plain values"),
        ("a:\n- !Thing {b: 1}", 2, "the tag !Thing is not obeyed"),
        ("[" * 100 + "]" * 100, 1, "32 deep"),
        ("a: 1\n" + "".join(f"{' ' * i}k:\n" for i in range(100)), 34, "32 deep"),
        ("[" + "1," * 30_000 + "]", 1, "this is too much: at most 10,000 values"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_at_its_line(text, line, says):
    message = refused(text)
    assert message.startswith((f"demo.yaml:{line}: ", "demo.yaml: not YAML"))
    assert says in message
    assert "\n" not in message and message.isprintable()


def test_an_alias_is_a_copy_of_what_it_names():
    document = yamlfile.parse("a: &x {b: [1]}\nc: *x\nd: [*x, &y 5, *y]", "demo.yaml")
    assert document.tree == {"a": {"b": [1]}, "c": {"b": [1]}, "d": [{"b": [1]}, 5, 5]}
    assert document.tree["a"] is not document.tree["c"]
    assert document.tree["a"]["b"] is not document.tree["c"]["b"]
    assert document.places["c",] == "demo.yaml:2"


def test_aliases_that_explode_are_refused_at_once():
    levels = [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9)}]" for i in range(1, 20)]
    start = time.process_time()
    assert "with every alias written out" in refused("\n".join(["k0: &k0 lol", *levels]))
    assert time.process_time() - start < 2


def test_aliases_that_make_a_tree_deep_are_refused():
    levels = [f"k{i}: &k{i} [*k{i - 1}]" for i in range(1, 60)]
    assert "32 deep" in refused("\n".join(["k0: &k0 lol", *levels]))


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:pathlib.Path.touch [{}]",
        "!!python/name:os.environ",
        "!<tag:yaml.org,2002:python/object/apply:os.mkdir> ['{}']",
    ],
)
def test_hostile_tags_do_nothing_and_are_refused(tmp_path, value):
    trace = tmp_path / "trace"
    message = refused("a: 1\nb: " + value.format(trace))
    assert message.startswith("demo.yaml:2: the tag ") and "is not obeyed" in message
    assert not trace.exists()


def test_environment_variables_are_not_read(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    assert tree("[$SECRET, '${SECRET}', '%SECRET%', ~/x]") == ["$SECRET", "${SECRET}", "%SECRET%", "~/x"]
    assert "hunter2" not in refused("a: !ENV ${SECRET}")


def write(tmp_path: Path, raw: bytes) -> Path:
    file = tmp_path / "demo.yaml"
    file.write_bytes(raw)
    return file


def file_refused(file: Path) -> str:
    with pytest.raises(Invalid) as caught:
        yamlfile.read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:")
    return message


def test_a_missing_file_is_refused_with_the_one_that_was_meant(tmp_path):
    write(tmp_path, b"a: 1")
    assert f"did you mean {tmp_path / 'demo.yaml'}?" in file_refused(tmp_path / "demo.yml")
    assert f"there is no such file (from {Path.cwd()})" in file_refused(tmp_path / "none" / "x")


def test_a_folder_is_refused(tmp_path):
    assert "this is a folder; name a YAML file in it" in file_refused(tmp_path)


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(Invalid, match=r"^a\\x00b: cannot be read"):
        yamlfile.read(Path("a\0b"))


def test_a_file_that_is_a_part_of_a_path_is_refused(tmp_path):
    file = write(tmp_path, b"a: 1")
    assert "cannot be read" in file_refused(file / "demo.yaml")


def test_bytes_that_are_not_utf8_are_refused_at_their_line(tmp_path):
    assert ":2: this is not UTF-8" in file_refused(write(tmp_path, b"a: 1\nb: caf\xe9\n"))
    assert ":1: this is not UTF-8" in file_refused(write(tmp_path, "a: 1".encode("utf-16")))


def test_a_file_that_is_too_large_is_refused_and_the_largest_allowed_is_read(tmp_path):
    assert "larger than 1,000,000 bytes" in file_refused(write(tmp_path, b"#" * (yamlfile.BYTES + 1)))
    assert yamlfile.read(write(tmp_path, b"#" * yamlfile.BYTES)).tree is None


def test_a_file_that_never_ends_is_refused():
    assert "larger than" in file_refused(Path("/dev/zero"))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "~"])
def test_an_empty_document_is_none(text):
    assert tree(text) is None


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    document = yamlfile.read(write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n"))
    assert document.tree == {"a": 1, "b": 2}
    assert document.places["b",].endswith("demo.yaml:2")


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | TEXTS
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=20)


@given(TREES, st.sampled_from([None, 2]))
def test_json_is_read_as_it_was_written(value, indent):
    assert tree(json.dumps(value, indent=indent)) == value


TOKENS = [
    *"ab:-?[]{},&*!|>'\"%@`#~0 \n\t\\\0\u0085",
    "  ",
    ": ",
    "- ",
    "\n  ",
    "1e3",
    "no",
    "<<",
    "&x ",
    "*x",
    "!!str ",
    "---",
]


@given(st.lists(st.sampled_from(TOKENS), max_size=40).map("".join) | st.text())
def test_any_text_is_a_tree_or_refused(text):
    try:
        yamlfile.parse(text, "demo.yaml")
    except Invalid as mistake:
        assert str(mistake).startswith("demo.yaml:") and str(mistake).isprintable()


def test_no_permission_is_a_refusal(tmp_path):
    file = write(tmp_path, b"a: 1")
    os.chmod(file, 0)
    if os.access(file, os.R_OK):  # the superuser reads everything
        assert yamlfile.read(file).tree == {"a": 1}
    else:
        assert "cannot be read" in file_refused(file)
