"""The architecture, held by reading the files: who may import whom, and how large anything may get.

Each rule is a function from a folder to its violations, so that the tests can plant some.
"""

import ast
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("orchestrator", "trainers")

# Who may import what from the outside. `orchestrator` and `trainers` alone stand for the whole package.
DOORS = {
    "ray": {
        "trainers/lean.py",
        "trainers/meeting.py",
        "trainers/post.py",
        "trainers/stage.py",
        "orchestrator/audit.py",
        "orchestrator/searcher.py",
        "orchestrator/trial.py",
        "orchestrator/cluster.py",
        "orchestrator/submit.py",
    },
    # The client, the registered model, and the code of the model that MLflow serves.
    "mlflow": {"orchestrator/connection.py", "orchestrator/registry.py", "orchestrator/served.py"},
    "yaml": {"orchestrator/yamlfile.py", "orchestrator/kuberay.py"},
    "click": {
        "orchestrator/cli.py",
        "orchestrator/commands",
        "orchestrator/completion.py",
        "orchestrator/session.py",
    },
    "rich": {"orchestrator/datacheck.py", "orchestrator/live_table.py"},
    "jinja2": {"orchestrator/report.py"},
    "pandas": {"orchestrator/notebook.py"},
    "torch": {"trainers", "orchestrator/samplers.py", "orchestrator/trial.py", "orchestrator/served.py"},
    "optuna": {"orchestrator/importance.py", "orchestrator/samplers.py"},
    "torchvision": {"trainers"},
    "pycocotools": {"trainers/data/masks.py"},
    "safetensors": {"trainers/store.py", "trainers/weights.py", "orchestrator/served.py"},
    "onnxruntime": {"trainers/export_runner.py"},
    "boto3": {"trainers/s3.py"},
    "botocore": {"trainers/s3.py"},
    "pickle": {"trainers/weights.py"},  # the name of an error: nothing is unpickled
}

SPECS = {"trainers.augment", "trainers.call", "trainers.spec"}

# These import the standard library, one another and the specs.
PURE = {
    f"orchestrator.{name}"
    for name in (
        "edges",
        "lattice",
        "patience",
        "settings",
        "strategies",
        "strategies.budgets",
        "strategies.known",
        "strategies.probing",
        "strategies.promises",
        "strategies.purses",
        "strategies.races",
        "strategies.waves",
        "strategies.whole",
        "turns",
        "cohorts",
        "results",
        "asking",
        "frontier",
        "costs",
        "makespan",
        "controls",
        "board",
        "outlook",
        "statistics",
        "answers",
        "summary",
        "expectations",
        "differences",
        "nearest",
    )
}
# And these this, too.
PURE_WITH = {"orchestrator/statistics.py": "numpy"}

# How the orchestrator enters `trainers`. Everybody may import the specs.
ENTRANCES = {
    "orchestrator/inputs.py": {
        "trainers.build",
        "trainers.outputs",
        "trainers.published",
        "trainers.store",
        "trainers.weights",
    },
    "orchestrator/experience.py": {"trainers.finished", "trainers.store"},
    "orchestrator/checks.py": {"trainers.build"},
    "orchestrator/prepared.py": {
        "trainers.build",
        "trainers.lease",
        "trainers.outputs",
        "trainers.sources",
        "trainers.store",
    },
    # By which code a stage was trained.
    "orchestrator/other_code.py": {"trainers.place", "trainers.sources"},
    "orchestrator/why.py": {"trainers.sources"},
    "orchestrator/audit.py": {"trainers.scratch"},
    "orchestrator/reading.py": {"trainers.visible"},
    "orchestrator/underway.py": {"trainers.order", "trainers.result", "trainers.scratch", "trainers.staging"},
    "orchestrator/searcher.py": {"trainers.deaths", "trainers.order"},
    "orchestrator/session.py": {"trainers.scratch", "trainers.store"},
    "orchestrator/pictures.py": {"trainers.seen"},
    "orchestrator/shown.py": {"trainers.address"},
    "orchestrator/cluster.py": {"trainers.address", "trainers.order", "trainers.proc"},
    "orchestrator/warm.py": {"trainers.place", "trainers.store"},
    "orchestrator/prices.py": {"trainers.place", "trainers.store"},
    "orchestrator/ended.py": {"trainers.cohort", "trainers.loop", "trainers.result", "trainers.stage"},
    "orchestrator/trial.py": {
        "trainers.deaths",
        "trainers.loop",
        "trainers.order",
        "trainers.post",
        "trainers.pulse",
        "trainers.result",
        "trainers.scratch",
        "trainers.stage",
        "trainers.workplace",
    },
    # What a study may name.
    "orchestrator/knobs.py": {"trainers.distill", "trainers.optim", "trainers.schedules"},
    "orchestrator/study.py": {
        "trainers.backbones",
        "trainers.data",
        "trainers.detectors",
        "trainers.distill",
        "trainers.optim",
        "trainers.published",
        "trainers.schedules",
    },
    "orchestrator/commands/measuring.py": {"trainers.data", "trainers.data.digits"},
    "orchestrator/checked.py": {"trainers.data.inspection", "trainers.data.rules"},
    "orchestrator/dividing.py": {
        "trainers.atomic",
        "trainers.data.annotations",
        "trainers.data.division",
        "trainers.data.inspection",
    },
    "orchestrator/datacheck.py": {
        "trainers.atomic",
        "trainers.data",
        "trainers.data.inspection",
        "trainers.data.mend",
        "trainers.data.rules",
    },
    # What addresses of stores say, and what lies there.
    "orchestrator/resources.py": {"trainers.address"},
    "orchestrator/kuberay.py": {"trainers.address"},
    "orchestrator/reach.py": {"trainers.address", "trainers.alive", "trainers.place"},
    "orchestrator/reported.py": {"trainers.address", "trainers.place", "trainers.scratch"},
    "orchestrator/evaluation.py": {
        "trainers.address",
        "trainers.appraisal",
        "trainers.backbones",
        "trainers.data",
        "trainers.detectors",
    },
    "orchestrator/served.py": {
        "trainers.build",
        "trainers.data.images",
        "trainers.outputs",
        "trainers.predict",
    },
    # The student in a user's hands.
    "orchestrator/meant.py": {"trainers.appraisal"},
    "orchestrator/prediction.py": {"trainers.appraisal", "trainers.data.images", "trainers.predict"},
    "orchestrator/exporting.py": {"trainers.export_files", "trainers.outputs"},
    "orchestrator/latency.py": {
        "trainers.appraisal",
        "trainers.build",
        "trainers.footprint",
        "trainers.outputs",
        "trainers.store",
        "trainers.teacher",
    },
    # What a study may say, what to begin with, and what lies in a folder of data.
    "orchestrator/schema.py": {
        "trainers.backbones",
        "trainers.data",
        "trainers.detectors",
        "trainers.distill",
        "trainers.metrics",
        "trainers.optim",
        "trainers.schedules",
    },
    "orchestrator/ladder.py": {"trainers.backbones", "trainers.build", "trainers.detectors"},
    "orchestrator/found_data.py": {"trainers.data.annotations", "trainers.data.coco_names", "trainers.data.voc"},
    "orchestrator/beginning.py": {"trainers.atomic", "trainers.build", "trainers.data", "trainers.detectors"},
    "orchestrator/proposed.py": {"trainers.pair"},
    "orchestrator/slow_start.py": {"trainers.build", "trainers.optim"},
    "orchestrator/doctor.py": {"trainers.address", "trainers.build"},
    "orchestrator/probe_torch.py": {"trainers.pair"},
    # What lies in a store, and what trains again.
    "orchestrator/needed.py": {"trainers.staging"},
    "orchestrator/unneeded.py": {
        "trainers.address",
        "trainers.kept_files",
        "trainers.place",
        "trainers.staged",
        "trainers.staging",
        "trainers.store",
    },
    "orchestrator/reproduce.py": {"trainers.scratch", "trainers.store"},
    # Shipped whole: with a model, and with a job.
    "orchestrator/registry.py": {"trainers"},
    "orchestrator/parcel.py": {"trainers"},
}

# What the parts of `trainers` may import beside their own files.
PARTS = {
    "backbones": {"call", "norm"},
    "detectors": {"box_losses", "call", "fpn", "norm", "outputs", "workers"},
    "distill": {"box_losses", "call", "outputs", "workers"},
    "data": {"augment", "call", "outputs"},
    "metrics": {"call", "data.split", "outputs"},
}

VAGUE = {"utils", "util", "common", "misc", "helpers", "helper", "base", "tools", "manager", "core", "hooks"}


class Import(NamedTuple):
    """One imported module or name."""

    file: str  # with /, from the root
    line: int
    target: str  # trainers.spec for `from trainers.spec import Call` and for `from trainers import spec`

    def under(self, module: str) -> bool:
        return self.target == module or self.target.startswith(f"{module}.")


class Source(NamedTuple):
    """A file of ours."""

    name: str
    tree: ast.Module
    text: str


parsed = lru_cache(maxsize=None)(ast.parse)  # of hundreds of files a planted violation changes one


@lru_cache(maxsize=1)
def files(root: Path) -> list[Source]:
    """Every source file."""
    paths = [path for package in SOURCES for path in sorted((root / package).rglob("*.py"))]
    texts = [path.read_text() for path in paths]
    return [Source(p.relative_to(root).as_posix(), parsed(t), t) for p, t in zip(paths, texts, strict=True)]


def imports(root: Path) -> Iterator[Import]:
    """Every import, inside functions too."""
    for source in files(root):
        yield from found(root, source, list(ast.walk(source.tree)))


def found(root: Path, source: Source, nodes: Iterable[ast.AST]) -> Iterator[Import]:
    """The imports among these nodes. What is imported from a package of ours is the module, if it is one."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (Import(source.name, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            for alias in node.names:
                path = root / start.replace(".", "/") / alias.name
                module = not node.level and (path.is_dir() or path.with_suffix(".py").is_file())
                yield Import(source.name, node.lineno, f"{start}.{alias.name}" if module else start)


def trainers_know_no_orchestrator(root: Path) -> Iterator[str]:
    for one in imports(root):
        if one.file.startswith("trainers/") and one.under("orchestrator"):
            yield f"{one.file}:{one.line} imports {one.target}"


def imports_are_absolute(root: Path) -> Iterator[str]:
    for one in imports(root):
        if one.target.startswith("."):
            yield f"{one.file}:{one.line} imports {one.target}"


def the_outside_comes_in_by_its_doors(root: Path) -> Iterator[str]:
    for one in imports(root):
        for library, doors in DOORS.items():
            if one.under(library) and not any(one.file == door or one.file.startswith(f"{door}/") for door in doors):
                yield f"{one.file}:{one.line} imports {one.target}"


def the_pure_files_are_pure(root: Path) -> Iterator[str]:
    for one in imports(root):
        if one.file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") in PURE:
            standard = one.target.split(".")[0] in sys.stdlib_module_names
            if not standard and one.target not in PURE | SPECS | {PURE_WITH.get(one.file)}:
                yield f"{one.file}:{one.line} imports {one.target}"


def the_orchestrator_enters_the_trainers_by_its_doors(root: Path) -> Iterator[str]:
    for one in imports(root):
        if one.file.startswith("orchestrator/") and one.under("trainers"):
            allowed = ENTRANCES.get(one.file, set()) | SPECS
            if one.target not in allowed:
                yield f"{one.file}:{one.line} imports {one.target}"


def the_parts_of_the_trainers_keep_apart(root: Path) -> Iterator[str]:
    for one in imports(root):
        _, part, *rest = one.file.split("/")
        if part in PARTS and rest and one.under("trainers"):
            allowed = PARTS[part] | {part}
            if not any(one.under(f"trainers.{name}") for name in allowed):
                yield f"{one.file}:{one.line} imports {one.target}"


def the_loop_knows_no_method(root: Path) -> Iterator[str]:
    for one in imports(root):
        if one.file in ("trainers/loop.py", "trainers/task.py"):
            for part in ("distill", "detectors", "backbones", "metrics", "store", "build"):
                if one.under(f"trainers.{part}"):
                    yield f"{one.file}:{one.line} imports {one.target}"


def the_spec_knows_nobody(root: Path) -> Iterator[str]:
    for one in imports(root):
        ours = any(one.under(package) for package in SOURCES) and one.target not in SPECS
        if one.file.removesuffix(".py").replace("/", ".") in SPECS and (ours or one.under("torch")):
            yield f"{one.file}:{one.line} imports {one.target}"


def nothing_imports_in_a_circle(root: Path) -> Iterator[str]:
    """At module level, an import that leads back to its own file."""
    arrows: dict[str, set[str]] = {}
    for source in files(root):
        module = source.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        arrows[module] = {one.target for one in found(root, source, source.tree.body)} - {module}
    for module in arrows:
        seen, waiting = set[str](), list(arrows[module])
        while waiting:
            there = waiting.pop()
            if there not in seen:
                seen.add(there)
                waiting += arrows.get(there, ())
        if module in seen:
            yield f"{module} imports itself by way of others"


def files_and_functions_are_short(root: Path) -> Iterator[str]:
    for name, tree, text in files(root):
        if (length := len(text.splitlines())) > 300:
            yield f"{name} has {length} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (length := node.end_lineno - node.lineno + 1) > 60:
                    yield f"{name}:{node.lineno} {node.name} has {length} lines"


def a_file_says_what_it_is(root: Path) -> Iterator[str]:
    for name, tree, text in files(root):
        said = ast.get_docstring(tree)
        if not said or not text.startswith('"""') or said.splitlines()[0][-1] not in ".:":
            yield f"{name} does not begin with a sentence"


def methods_cite_their_paper(root: Path) -> Iterator[str]:
    """Whoever offers a class in distill, detectors or metrics links where it comes from."""
    for part in ("distill", "detectors", "metrics"):
        registry = ast.parse((root / "trainers" / part / "__init__.py").read_text())
        for node in ast.walk(registry):
            if isinstance(node, ast.ImportFrom) and node.module:
                name = f"{node.module.replace('.', '/')}.py"
                said = ast.get_docstring(ast.parse((root / name).read_text())) or ""
                if not re.search(r"https://\S+", said):
                    yield f"{name} links no paper"


def names_say_what(root: Path) -> Iterator[str]:
    for name, _, _ in files(root):
        for part in Path(name).with_suffix("").parts[1:]:
            if part.lower() in VAGUE:
                yield f"{name} says nothing by its name"


def nothing_is_left_for_later(root: Path) -> Iterator[str]:
    words = ("TODO", "FIXME", "XXX", "NotImplementedError", "noqa", "type: ignore", "pragma: no cover")
    for name, _, text in files(root):
        for number, line in enumerate(text.splitlines(), start=1):
            if any(word in line for word in words) or not line.isascii():
                yield f"{name}:{number} {line.strip()}"


# What runs, or can run, what it is given.
RUNS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "dill.load"),
    *("dill.loads", "joblib.load", "pandas.read_pickle", "torch.hub.load", "torch.jit.load", "torch.package"),
}
FROM_IMPORTS = {"pickle": {"UnpicklingError"}, "marshal": set(), "shelve": set(), "dill": set(), "yaml": set()}


def nothing_runs_code_from_a_file(root: Path) -> Iterator[str]:
    """No eval, exec or unpickling, under no other name either; torch.load with weights_only alone; no shell."""
    for name, tree, _ in files(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                said = {k.arg: ast.unparse(k.value) for k in node.keywords}
                unsafe = called == "torch.load" and said.get("weights_only") != "True"
                if unsafe or said.get("allow_pickle") == "True" or said.get("shell") == "True":
                    yield f"{name}:{node.lineno} calls {called}"
            read = isinstance(node, ast.Name | ast.Attribute) and isinstance(
                node.ctx, ast.Load
            )  # a field may be called so
            if read and ast.unparse(node) in RUNS:
                yield f"{name}:{node.lineno} uses {ast.unparse(node)}"
            if isinstance(node, ast.Import):
                yield from (
                    f"{name}:{node.lineno} renames {a.name}" for a in node.names if a.asname and a.name == "yaml"
                )
            if isinstance(node, ast.ImportFrom) and node.module in FROM_IMPORTS:
                for one in {alias.name for alias in node.names} - FROM_IMPORTS[node.module]:
                    yield f"{name}:{node.lineno} takes {one} out of {node.module}"


Rule = Callable[[Path], Iterator[str]]
RULES: list[Rule] = [
    trainers_know_no_orchestrator,
    imports_are_absolute,
    the_outside_comes_in_by_its_doors,
    the_pure_files_are_pure,
    the_orchestrator_enters_the_trainers_by_its_doors,
    the_parts_of_the_trainers_keep_apart,
    the_loop_knows_no_method,
    the_spec_knows_nobody,
    nothing_imports_in_a_circle,
    files_and_functions_are_short,
    a_file_says_what_it_is,
    methods_cite_their_paper,
    names_say_what,
    nothing_is_left_for_later,
    nothing_runs_code_from_a_file,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_sources_keep_the_rule(rule: Rule) -> None:
    assert list(rule(ROOT)) == []


def test_the_lists_of_this_file_name_files_that_are_there_and_need_their_exception() -> None:
    every = list(imports(ROOT))
    for library, doors in DOORS.items():
        for door in doors:
            assert any(one.under(library) and one.file.startswith(door) for one in every), f"{door} needs no {library}"
    for file, targets in ENTRANCES.items():
        assert targets == {one.target for one in every if one.file == file and one.under("trainers")} - SPECS
    for module in PURE:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in SOURCES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


LONG = "def long() -> None:\n" + "    pass\n" * 60
PLANTED: list[tuple[Rule, str, str, str]] = [
    (trainers_know_no_orchestrator, "trainers/loop.py", "import orchestrator.lattice", "orchestrator.lattice"),
    (trainers_know_no_orchestrator, "trainers/data/coco.py", "from orchestrator import study", "orchestrator.study"),
    (imports_are_absolute, "trainers/task.py", "from . import store", "imports ."),
    (imports_are_absolute, "trainers/data/coco.py", "from ..store import Store", "..store"),
    (the_outside_comes_in_by_its_doors, "trainers/loop.py", "import ray", "ray"),
    (the_outside_comes_in_by_its_doors, "trainers/worker.py", "def f() -> None:\n    from ray import train", "ray"),
    (the_outside_comes_in_by_its_doors, "orchestrator/underway.py", "import mlflow.tracking", "mlflow.tracking"),
    (the_outside_comes_in_by_its_doors, "orchestrator/tracking.py", "from mlflow import log_metric", "mlflow"),
    (the_outside_comes_in_by_its_doors, "orchestrator/study.py", "import yaml", "yaml"),
    (the_outside_comes_in_by_its_doors, "orchestrator/plan.py", "import torch", "torch"),
    (the_pure_files_are_pure, "orchestrator/lattice.py", "import numpy", "numpy"),
    (the_pure_files_are_pure, "orchestrator/frontier.py", "from trainers import store", "trainers.store"),
    (
        the_pure_files_are_pure,
        "orchestrator/board.py",
        "from orchestrator.underway import Run",
        "orchestrator.underway",
    ),
    (
        the_orchestrator_enters_the_trainers_by_its_doors,
        "orchestrator/plan.py",
        "from trainers.loop import Training",
        "trainers.loop",
    ),
    (
        the_orchestrator_enters_the_trainers_by_its_doors,
        "orchestrator/underway.py",
        "from trainers import distill",
        "trainers.distill",
    ),
    (
        the_parts_of_the_trainers_keep_apart,
        "trainers/distill/ld.py",
        "from trainers.detectors.focal import integral",
        "trainers.detectors.focal",
    ),
    (
        the_parts_of_the_trainers_keep_apart,
        "trainers/detectors/gfl.py",
        "from trainers.distill.soft import soft_kl",
        "trainers.distill.soft",
    ),
    (
        the_parts_of_the_trainers_keep_apart,
        "trainers/distill/kd.py",
        "from trainers import data",
        "trainers.data",
    ),
    (the_parts_of_the_trainers_keep_apart, "trainers/data/coco.py", "import trainers.detectors", "trainers.detectors"),
    (the_loop_knows_no_method, "trainers/loop.py", "from trainers.distill import LD", "trainers.distill"),
    (the_spec_knows_nobody, "trainers/spec.py", "from trainers import store", "trainers.store"),
    (nothing_imports_in_a_circle, "trainers/store.py", "from trainers.worker import work", "trainers.store"),
    (files_and_functions_are_short, "trainers/task.py", "#\n" * 300, "lines"),
    (files_and_functions_are_short, "trainers/task.py", LONG, "long has 61 lines"),
    (names_say_what, "trainers/utils.py", '"""Some."""', "utils.py"),
    (names_say_what, "orchestrator/helpers/lists.py", '"""Some."""', "helpers"),
    (a_file_says_what_it_is, "trainers/new.py", "import os", "new.py"),
    (methods_cite_their_paper, "trainers/distill/new.py", '"""NEW: no source."""', "new.py"),
    (nothing_is_left_for_later, "trainers/task.py", "# TODO: all the rest", "TODO"),
    (nothing_is_left_for_later, "orchestrator/underway.py", "x = 3  # type: ignore", "type: ignore"),
    (nothing_is_left_for_later, "orchestrator/underway.py", "# caf\u00e9", "caf"),
    (nothing_runs_code_from_a_file, "trainers/teacher.py", "torch.load('x')", "torch.load"),
    (nothing_runs_code_from_a_file, "trainers/teacher.py", "torch.load('x', weights_only=False)", "torch.load"),
    (nothing_runs_code_from_a_file, "orchestrator/scalar.py", "eval('1')", "eval"),
    (nothing_runs_code_from_a_file, "orchestrator/yamlfile.py", "x = yaml.unsafe_load", "yaml.unsafe_load"),
    (nothing_runs_code_from_a_file, "orchestrator/yamlfile.py", "from yaml import load", "load out of yaml"),
    (nothing_runs_code_from_a_file, "orchestrator/yamlfile.py", "import yaml as y", "renames yaml"),
    (nothing_runs_code_from_a_file, "trainers/weights.py", "from pickle import loads", "loads out of pickle"),
    (nothing_runs_code_from_a_file, "trainers/weights.py", "x = pickle.loads", "pickle.loads"),
    (nothing_runs_code_from_a_file, "trainers/data/vbb.py", "np.load('x', allow_pickle=True)", "np.load"),
    (nothing_runs_code_from_a_file, "orchestrator/submit.py", "subprocess.run('x', shell=True)", "subprocess.run"),
]


@pytest.mark.parametrize(
    ("rule", "file", "violation", "named"), PLANTED, ids=[f"{rule.__name__}-{file}" for rule, file, *_ in PLANTED]
)
def test_a_planted_violation_is_caught(copy: Path, rule: Rule, file: str, violation: str, named: str) -> None:
    path = copy / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text()}\n{violation}\n" if path.exists() else f"{violation}\n")
    if rule is methods_cite_their_paper:
        with (path.parent / "__init__.py").open("a") as registry:
            registry.write("from trainers.distill.new import NEW\n")
    assert any(named in one for one in rule(copy))


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, *_ in PLANTED} == set(RULES)
    here = ast.parse(Path(__file__).read_text()).body
    written = {
        f.name
        for f in here
        if isinstance(f, ast.FunctionDef) and f.returns and "Iterator[str]" in ast.unparse(f.returns)
    }
    assert written == {rule.__name__ for rule in RULES}
