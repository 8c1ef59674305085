"""What is kept of a finished stage."""

from __future__ import annotations

from pydantic import Field

from trainers.call import Invalid, Spec
from trainers.footprint import Footprint
from trainers.spec import Stage
from trainers.usage import Usage

FORMAT = 4  # 1 had no alphas, no selected epoch and no usage, 2 had no footprint, 3 no sources


class Result(Spec):
    """What is kept of a finished stage."""

    stage: Stage
    score: float  # of the epoch whose weights were kept; higher is better
    metrics: dict[str, float]  # of that epoch, such as val/AP; and of the same weights test/AP, if the data has a test
    history: list[dict[str, float]]  # one entry an epoch, with "epoch" counting from 1
    seconds: float  # of training and validation, interruptions not counted
    device: str
    sha256: str  # of the weights file
    size: int  # of the weights file, bytes
    alphas: dict[str, float] = Field(default_factory=dict)  # found in training, by the losses' names in the log
    selected: int | None = None  # the epoch that was kept because it was the best; None: the last was, as always
    usage: Usage | None = None  # None: nobody noted it
    footprint: Footprint | None = None  # None: nobody measured it
    sources: dict[str, str] = Field(default_factory=dict)  # digests of the code that trained it; see `sources`
    format: int = FORMAT

    @property
    def key(self) -> str:
        return self.stage.key

    def figure(self, name: str) -> float:
        """What the metric said under this name, be it the score or not. Raises `Invalid` if it said nothing."""
        if f"val/{name}" not in self.metrics:
            said = ", ".join(key.removeprefix("val/") for key in self.metrics if key.startswith("val/"))
            raise Invalid(f"the result {self.key} has no {name}, only {said}; remove its folder to train it anew")
        return self.metrics[f"val/{name}"]
