"""What `tapath init` proposes for training: recipe, losses and machine, as lines of a study with comments."""

from __future__ import annotations

from typing import Any, NamedTuple

from orchestrator.cores import cores
from orchestrator.found_data import FoundData
from orchestrator.ladder import SMALL
from orchestrator.machine import num_gpus
from orchestrator.yamlfile import flow
from trainers import pair
from trainers.spec import Recipe

SMALLEST = 320  # pixels of the short side below which images are not enlarged
EPOCHS, BATCH, RATE = 12, 16, 0.01  # of the field's usual recipe: epochs, images, learning rate
USUAL = Recipe(epochs=EPOCHS, batch=BATCH, lr=RATE, group=True)
SMALL_HEAD = {"channels": 16, "convs": 2, "extra": 0, "reg_max": 8}
DISTRIBUTIONS = ("GFL", "GFLv2")  # the detectors that say boxes as LD needs it
CORES = 4  # of a stage on a GPU: that many processes load its images
SLOW = (
    "no GPU was named, and on CPUs this takes very long: take a smaller --student, smaller images, "
    "or a machine with a GPU"
)


class Wanted(NamedTuple):
    """What a study is to begin with."""

    data: FoundData
    detector: str
    teacher: str
    student: str
    weights: str  # of the teacher: published, none, or where they are
    gpus: int
    steps: int  # of an epoch of `USUAL`; 0: not known

    @property
    def small(self) -> bool:
        """Whether the models are those for small images."""
        return self.student.startswith(SMALL)

    @property
    def slow(self) -> bool:
        """Whether large models would train on CPUs."""
        return not self.gpus and not self.small

    @property
    def head(self) -> dict[str, Any] | str:
        """The detector as a study writes it."""
        return {self.detector: SMALL_HEAD} if self.small and self.detector == "GFL" else self.detector

    @property
    def resize(self) -> tuple[int, int] | None:
        """The short side, and the longest; None: images stay as they are."""
        if self.small or min(self.data.image) < SMALLEST:
            return None
        return (600, 1000) if "VOC" in self.data.written else (800, 1333)


def recipe(wanted: Wanted) -> list[str]:
    """How all are trained, unless a model says otherwise."""
    if wanted.small:
        return [
            "recipe:",
            "  epochs: 10",
            "  batch: 16",
            "  optimizer: {AdamW: {weight_decay: 0.05}}",
            "  lr: 0.008",
            "  schedule: OneCycle",
            "  warmup: 0",
            *(["  flip: 0 # a mirrored digit is another sign"] if "Digits" in wanted.data.written else []),
        ]
    few, warmup = _few(wanted)
    return [
        f"recipe: # of the field: {EPOCHS} epochs, the rate falls after 8 and 11 of them",
        *few,
        f"  epochs: {EPOCHS}",
        f"  batch: {BATCH} # images of all workers together; with another number change lr in proportion",
        f"  lr: {RATE}",
        *warmup,
        *(
            [f"  resize: {list(wanted.resize)} # short side, and the longest that the long side may be"]
            if wanted.resize
            else ["  # images are small, and stay as they are; resize: [800, 1333] would enlarge them"]
        ),
        "  group: true # batches of images that are wider than high, or of the others: less padding",
        "  freeze: 1",
        "  fixed_norm: true # batch norms keep what ImageNet taught them",
        *(["  precision: bf16"] if wanted.gpus else []),
    ]


def _few(wanted: Wanted) -> tuple[list[str], list[str]]:
    """What is to be said of the epochs, and the warm-up, where the usual one would take more than a tenth of all."""
    steps = wanted.steps * EPOCHS
    if not 0 < steps < 10 * USUAL.warmup:
        return [], []
    said = f"  # of so few images that is {steps:,} steps, of COCO's 88,000: write more while the report's curves rise"
    return [said], [f"  warmup: {max(1, steps // 10)} # steps: a tenth of all; unless said it is {USUAL.warmup}"]


def rest(wanted: Wanted) -> list[str]:
    """What teaches, what is searched, and where it runs."""
    knobs: dict[str, Any] = {"weight": 0.5} if wanted.small else {}
    if wanted.data.classes == 1:  # a softmax of one class says nothing
        knobs["form"] = "binary"
    if wanted.detector not in DISTRIBUTIONS:
        said, losses = "PKD: the pattern of features, whatever the detector", "{PKD: {weight: 6}}"
    else:
        said = "LD: how sure the teacher is of each edge of a box; KD: of the classes"
        edges = "{LD: {weight: 0.03, vlr_weight: 0, normaliser: per_image}}" if wanted.small else "{LD: {weight: 0.25}}"
        losses = f"{edges}, {flow({'KD': knobs}) if knobs else 'KD'}"
    return [
        f"# {said}",
        f"distill: [{losses}]",
        "search: exhaustive # every path; best_predecessor trains fewer where there are many",
        "seeds: [0] # [0, 1, 2] to tell a gain from luck, at three times the cost",
        *_machine(wanted),
    ]


def _machine(wanted: Wanted) -> list[str]:
    """A GPU for each stage and its share of the cores; without one all cores, or for small models one, as more are of
    no use to them."""
    if wanted.gpus:
        elsewhere = wanted.gpus > gpus()  # whose cores nobody here knows
        share = CORES if elsewhere else max(1, min(CORES, cores() // wanted.gpus))
        return [
            f"# each stage on one of {wanted.gpus} GPUs; workers: {wanted.gpus} would give each of them all",
            f"resources: {{gpus: 1, cpus: {share}, loader_workers: {share}, micro_batch: 4}}",
        ]
    if wanted.small:
        return ["resources: {cpus: 1} # no GPU was named: gpus: 1 for one"]
    return [
        f"# {SLOW}",
        f"resources: {{cpus: {cores()}}} # all cores for one stage at a time; gpus: 1 for a GPU",
    ]


def gpus() -> int:
    """How many this machine has: as Linux lists them, or as torch sees them where it lists none, as under WSL2."""
    return num_gpus() or pair.gpus()
