"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path as File
from types import ModuleType

import pytest
from PIL import Image

from orchestrator import strategies
from orchestrator.study import load
from tests.orchestrator.documented import blocks, ours
from tests.orchestrator.studies import tapath
from trainers import backbones, build, detectors, distill, metrics, optim, schedules
from trainers import data as datasets
from trainers.call import offers

ROOT = File(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"`tapath ([a-z][^`]*)`", README)
# What its blocks have people type, but for what trains or wants a cluster: see test_typed.py.
LINES = {shlex.join(words) for line in blocks(README) if (words := ours(line)) and words[0] not in ("run", "submit")}
EXAMPLES = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
TARGETS = sorted(set(re.findall(r"\bmake ([a-z]+)\b", README)))


def test_the_readme_shows_every_command_that_there_is() -> None:
    usage = tapath(ROOT, "--help").out
    there = re.findall(r"^  ([a-z]+) ", usage.partition("Commands:")[2], flags=re.MULTILINE)
    assert there and {command.split()[0] for command in COMMANDS} == set(there)


@pytest.mark.ray
@pytest.mark.parametrize("command", sorted(LINES.union(COMMANDS)))
def test_a_command_of_the_readme_works(command: str, finished: File, tmp_path: File) -> None:
    folder = tmp_path / "here"
    shutil.copytree(finished, folder)
    weights = next((folder / "store").glob("*/result.json")).parent
    names = {
        "STUDY": "tiny.yaml",
        "NAME": "tiny",
        "DIR": "digits",
        "FILE": "digits/annotations/instances_train2017.json",
        "WEIGHTS": str(weights),
        "IMAGES": "digits/val2017",
        "MODEL": "models:/tiny@best",
        "study.yaml": "tiny.yaml",
        "search_spaces/demo.yaml": "tiny.yaml",
        "store/0123456789abcdef": str(weights),
        "models:/demo@best": "models:/tiny@best",
        "photos/": "digits/val2017",
        "/data/cats": "digits",
    }
    words = [names.get(word, word) for word in shlex.split(command)]
    if words[:2] != ["data", "digits"] and any(word.partition("/")[0] in ("digits", "photo.jpg") for word in words):
        tapath(folder, "data", "digits", "digits", "--val", "4")
        Image.new("RGB", (64, 64)).save(folder / "photo.jpg")
    ran = tapath(folder, *(["plan", "tiny.yaml"] if words == ["plan"] else words))
    assert ran.code == 0, ran.err
    assert ran.out.strip()


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def names_in(table: str, kind: str = "") -> set[str]:
    """What the first column of a table names, or the second one in the row of a kind."""
    rows = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", table, flags=re.MULTILINE)]
    cells = [row[1] for row in rows if row[0] == kind] if kind else [row[0] for row in rows]
    return set(re.findall(r"`\{?(\w+)", " ".join(cells)))


@pytest.mark.parametrize(
    ("package", "kind"),
    [
        *((detectors, "detectors"), (backbones, "backbones"), (datasets, "data"), (metrics, "metrics")),
        *((optim, "optimizers"), (schedules, "schedules")),
    ],
    ids=lambda one: one if isinstance(one, str) else "names",
)
def test_all_that_is_built_in_is_in_the_table(package: ModuleType, kind: str) -> None:
    assert set(offers(package)) - names_in(section("What is built in"), kind) == set()


@pytest.mark.parametrize(
    ("package", "title"),
    [(distill, "Losses"), (strategies, "Searches"), (datasets, "Data")],
    ids=lambda one: one if isinstance(one, str) else "names",
)
def test_each_loss_search_and_data_set_has_its_row(package: ModuleType, title: str) -> None:
    heading = {"Searches": {"search"}}.get(title, set())
    only_to_try = {"Digits"} if title == "Data" else set()
    assert names_in(section(title)) - heading == set(offers(package)) - only_to_try


def test_a_name_that_is_missing_in_a_table_is_found() -> None:
    table = "| kind | names |\n| --- | --- |\n| data | `COCO`, or `{VOC: {}}` |\n| `LD` | `KD` |\n"
    assert names_in(table, "data") == {"COCO", "VOC"} and names_in(table) == {"LD"}


def test_the_study_of_the_readme_is_accepted(tmp_path: File) -> None:
    text, *_ = EXAMPLES
    file = tmp_path / "readme.yaml"
    file.write_text(text)
    assert list(load(file).models) == ["large", "small", "tiny"]
    assert tapath(tmp_path, "plan", "readme.yaml").code == 0


def test_the_published_weights_of_the_readme_are_accepted(tmp_path: File) -> None:
    _, models, *_ = EXAMPLES
    file = tmp_path / "readme.yaml"
    file.write_text(f"data: Digits\n{models}distill: [KD]\n")
    sources = [model.weights for model in load(file).models.values()]
    assert [source.remote for source in sources if source is not None] == [False, True]


def test_own_data_are_read_as_the_readme_lays_them_out(tmp_path: File) -> None:
    _, _, data, _ = EXAMPLES
    (annotations,) = re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "images/tom").mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(tmp_path / "images/tom/0001.jpg")
    for name in ("train.json", "val.json"):
        (tmp_path / name).write_text(annotations)
    study = tmp_path / "readme.yaml"
    models = (
        "models: {a: {detector: GFL, backbone: {TinyResNet: {width: 8}}}, b: {detector: GFL, backbone: TinyResNet}}"
    )
    study.write_text(f"{data.replace('/data/cats', str(tmp_path))}{models}\ndistill: [LD]\n")
    contents = build.dataset(load(study).data)
    assert contents.classes == ("cat",) and contents.train.boxes(0).tolist() == [[10, 20, 210, 170]]


def test_the_sweep_of_the_readme_is_accepted(tmp_path: File) -> None:
    study, *_, sweep = EXAMPLES
    file = tmp_path / "readme.yaml"
    file.write_text(study + sweep)
    swept = load(file).swept
    assert swept is not None and set(swept.knobs) == {"LD.weight", "LD.temperature", "recipe.lr", "distill"}


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_what_the_readme_tells_it(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_make_bench_measures_what_the_figures_name_but_for_what_the_readme_says() -> None:
    said, _, table = section("Figures").partition("\n|")
    last = re.findall(r"^\|.*\|([^|]*)\|$", table, flags=re.MULTILINE)[2:]
    named = set(re.findall(r"`([a-z_]+\.py)`", " ".join(last)))
    shown = subprocess.run(["make", "--dry-run", "bench"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    measured = set(re.findall(r"benchmarks/([a-z_]+\.py)", shown))
    assert named - measured == set(re.findall(r"`([a-z_]+\.py)`", said)) == {"chaos.py"}
    assert ("rows without a name" in said) == any(not cell.strip() for cell in last)


def test_the_files_that_the_readme_names_exist() -> None:
    named = re.findall(r"`((?:trainers|orchestrator|tests|search_spaces|benchmarks)/[\w/.]*)`", README)
    linked = [name for name in re.findall(r"\]\(([^)#]+)", README) if "://" not in name]
    assert named and linked and [name for name in named + linked if not (ROOT / name).exists()] == []
