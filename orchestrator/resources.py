"""Where and how a study runs: what makes no difference to what is learned."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from trainers.address import checked
from trainers.call import Count, Index, NonNegative, Positive, Spec

UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _bytes(written: Any) -> Any:
    """8 GiB -> 8589934592; a number as it is."""
    if not isinstance(written, str):
        return written
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?i?B|KiB)?", written.strip())
    if found is None or (found[2] or "") not in UNITS:
        raise ValueError(f"write bytes, or a number and one of {', '.join(filter(None, UNITS))}, as in 8 GiB")
    return round(float(found[1]) * UNITS[found[2] or ""])


def _custom(amounts: dict[str, float]) -> dict[str, float]:
    for name, field in (("CPU", "cpus"), ("GPU", "gpus"), ("memory", "memory"), ("accelerator_type", "accelerator")):
        if any(one == name or one.startswith(f"{name}:") for one in amounts):
            raise ValueError(f"{name} is asked for by {field}")
    return amounts


Word = Annotated[str, Field(min_length=1)]


def _whole(place: bool | str) -> bool | str:
    if isinstance(place, str) and not place.startswith(("/", "~")):
        raise ValueError("write the whole path of a folder that every node has, or true for a temporary one")
    return place


class Placement(Spec):
    """What the stages of a model run on. A worker is one process on one node, with its share of that node."""

    workers: Count = 1  # of a stage
    min_workers: Count | None = None  # with which a stage starts and goes on, if there is no room for all; None: all
    cpus: Positive = 1  # of a worker
    gpus: NonNegative = 0  # of a worker
    memory: Annotated[Count, BeforeValidator(_bytes)] | None = None  # of a worker, in bytes; None: not looked at
    accelerator: Word | None = None  # the type of GPU, by Ray's name for it, such as A100 or H100
    custom: Annotated[dict[Word, Positive], AfterValidator(_custom)] = Field(
        default_factory=dict
    )  # of a worker, of what nodes were started with
    labels: dict[Word, str] = Field(default_factory=dict)  # that the node of each worker has
    stages_at_once: Count | None = None  # None: as many as there is room for
    loader_workers: Index = 0  # processes that load data, of a worker
    micro_batch: Count | None = None  # images of its share of a batch that a worker looks at once; None: all
    # Live batch norms take the statistics of all workers: those of one worker with the whole batch.
    sync_batch_norm: bool = False
    # Within rounding these make no difference, but `compile` to what a student leaves out at random. On a GPU a
    # teacher's own precision; None: the recipe's.
    teacher_precision: Literal["bf16", "fp32"] | None = None
    compile: bool = False  # the networks of student and teacher, for each size of batch that comes often
    channels_last: bool | None = None  # the layout of their maps on a GPU; None: channels last

    @property
    def told(self) -> dict[str, Any]:
        """What a worker is told of all this."""
        names = ("loader_workers", "micro_batch", "sync_batch_norm", "teacher_precision", "compile", "channels_last")
        return {name: getattr(self, name) for name in names}

    def shares(self, other: Placement) -> bool:
        """Whether stages of two models may be trained by one process, or by the same workers of a fixed number: they
        share guides, which are laid out and asked in one way."""
        fixed = self.min_workers is None and other.min_workers is None
        mine, theirs = ((one.workers, one.demand, one.labels, one.told) for one in (self, other))
        return fixed and mine == theirs

    @property
    def fewest(self) -> int:
        """Workers of a stage without which it waits."""
        return self.workers if self.min_workers is None else min(self.min_workers, self.workers)

    @property
    def apart(self) -> bool:
        """Whether a stage's workers are processes of their own, and not the one that hands it out: there may come to be
        several."""
        return self.workers > 1 or self.min_workers is not None

    @property
    def demand(self) -> dict[str, float]:
        """What one worker asks of its node, under Ray's names."""
        wanted: dict[str, float] = {"CPU": float(self.cpus), "GPU": float(self.gpus), "memory": float(self.memory or 0)}
        if self.accelerator:
            wanted[f"accelerator_type:{self.accelerator}"] = 0.001  # nodes have 1 of it, whatever they have of GPUs
        return {kind: amount for kind, amount in {**wanted, **self.custom}.items() if amount}

    @property
    def needs(self) -> str:
        """What a stage cannot do without, in words."""
        worker = ", ".join(amount_of(kind, amount) for kind, amount in self.demand.items())
        labels = "".join(f", {name}={value}" for name, value in self.labels.items())
        return f"{self.fewest} worker(s) with {worker}{labels} each"


def amount_of(kind: str, *amounts: float) -> str:
    """So much of what Ray counts, or so much of so much; memory in GiB."""
    unit, name, digits = (UNITS["GiB"], "GiB of memory", 2) if kind == "memory" else (1, kind, 6)
    return " of ".join(f"{round(amount / unit, digits):g}" for amount in amounts) + f" {name}"


class Resources(Placement):
    """Where and how a study runs, its models unless they say otherwise."""

    evaluate_every: Count = 1  # epochs, unless the recipe keeps the best, or trainings may pause
    # Stages that one process trains together, as they share their teacher and their batches: at most so many, of those
    # for which there is no room of their own.
    cohort: Literal["auto"] | Count = "auto"
    bad_images: Index = 10  # how many training images a worker of a stage may find unreadable, and replace
    # The folder of each node to which it copies the data first, as /local/scratch; true: a temporary one.
    stage_data: Annotated[bool | Word, AfterValidator(_whole)] = False
    lease: Positive = 60  # seconds after which a stage whose process is silent may be trained by another run
    silence: Annotated[float, Field(ge=5)] = (
        600  # seconds without a step or a sign of life after which a process is ended, and begun again
    )
    store: Annotated[Word, AfterValidator(checked)] = "store"
    runs: Annotated[Word, AfterValidator(checked)] = "runs"
    tracking: Word | None = None  # None: where MLflow's own variable says, or here
    pictures: Annotated[int, Field(ge=0, le=100)] = 6  # validation images in the report, with what was found in them
    tracking_patience: NonNegative = 60  # seconds for which a run waits in the end for MLflow to have everything

    @property
    def tracking_uri(self) -> str:
        """MLflow's address: the study's, else $MLFLOW_TRACKING_URI, else the file that `mlflow ui` opens here."""
        return self.tracking or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
