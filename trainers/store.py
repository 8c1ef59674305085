"""Results and weights by the key of their stage, on a folder that every worker can see.

A result is there whole or not at all: weights are written aside, flushed and renamed, then `result.json` is, which
names their SHA-256. Nothing that is read back can run code: weights are safetensors, and states are opened with
`weights_only`. Nothing absolute is stored, so a store may be moved.

    <store>/<key>/result.json          the stage, its score, its curves, the digest of its weights
    <store>/<key>/weights.safetensors  what the stage learned
    <store>/<key>/measured.json        that the weights, read back, have this score
    <store>/<key>/state-<epoch>-<digest>.pt   where a half-trained stage stopped, the last two; gone when it is done
    <store>/published/<sha256>.weights        weights that models start from
    <store>/published/<digits>.json           which of them a path or a URL was, by its own SHA-256: it may hold secrets
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainers import states
from trainers.atomic import digest as digest
from trainers.atomic import set_aside as set_aside
from trainers.atomic import write
from trainers.call import Invalid, Spec
from trainers.footprint import Footprint
from trainers.full import fitting
from trainers.records import Header, Known, Measurement, Pause
from trainers.spec import Stage
from trainers.usage import Usage

FORMAT = 3  # 1 had no alphas, no selected epoch and no usage, 2 had no footprint
PUBLISHED = "published"
PAUSE = "paused.json"


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


class Damaged(RuntimeError):
    """A stored file is not what was written; it was set aside."""


class Store:
    """Results and half-trained states under one folder."""

    def __init__(self, root: str | Path, *, guard: Callable[[], None] = lambda: None) -> None:
        """`guard` is called before anything of a stage is written for good; it raises if that is not ours to do."""
        self.root, self.guard = Path(root), guard

    def get(self, stage: Stage) -> Result | None:
        """The stage's result if it is stored whole: readable, of this very stage, its weights of the recorded size."""
        result, weights = self._record(stage), self.weights_file(stage.key)
        return result if result and weights.is_file() and weights.stat().st_size == result.size else None

    def check(self, stage: Stage) -> bool:
        """Whether the stage is stored whole, every byte of its weights included. Damaged weights are set aside."""
        result, weights = self._record(stage), self.weights_file(stage.key)
        if result is None or not weights.is_file():
            return False
        if digest(weights) == result.sha256:
            return True
        set_aside(weights)
        return False

    def _record(self, stage: Stage) -> Result | None:
        """What is noted of the stage. Raises `Invalid` for what must be left alone: see there."""
        file = self.result_file(stage.key)
        for one in (file.parent, file, self.weights_file(stage.key)):
            if one.is_symlink() and not one.resolve().is_relative_to(self.root.resolve()):
                raise Invalid(f"{one} is a symbolic link out of the store; put what it points to in its place")
        try:
            text = file.read_bytes()
            version = Header.model_validate_json(text).format
            if version > FORMAT:
                raise Invalid(f"{file} was written by a newer tapath (format {version}, this one reads {FORMAT})")
            result = Result.model_validate_json(text)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValidationError:
            set_aside(file)
            return None
        if result.stage != stage:
            raise Invalid(f"{file} holds another stage than its key says; move that folder away")
        return result

    def weights(self, result: Result) -> dict[str, Tensor]:
        """The weights of a result. Raises `Damaged` when the file is not the one that was stored."""
        file = self.weights_file(result.key)
        if not file.is_file() or digest(file) != result.sha256:
            aside = set_aside(file) if file.is_file() else file
            raise Damaged(f"the weights of stage {result.key} are damaged ({aside}); run again to train it anew")
        try:
            return load_file(file)
        except SafetensorError as error:  # somebody made the record fit it
            raise Damaged(f"the weights of stage {result.key} are none ({set_aside(file)}): {error}") from None

    def put(
        self, stage: Stage, weights: dict[str, Tensor], *, check: Callable[[Result], object] = bool, **facts: Any
    ) -> Result:
        """Store a finished stage; `facts` are the other fields of `Result`.

        `check` gets the result while its weights can be read and before anybody else can see it; if it raises,
        there is no result.
        """
        file = self.weights_file(stage.key)
        self.guard()
        self.result_file(stage.key).unlink(missing_ok=True)  # of weights that were damaged, and not of these
        with fitting(file, weights):
            write(file, lambda path: save_file(weights, path), guard=self.guard)
        result = Result(stage=stage, sha256=digest(file), size=file.stat().st_size, **facts)
        check(result)
        text = result.model_dump_json(indent=1)
        write(self.result_file(stage.key), lambda path: path.write_text(text), guard=self.guard)
        return result

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What was written of every finished stage, by key in order, as plain data and so of whichever version.

        Passed over: what cannot be read, and what has no weights of the recorded size.
        """
        for file in sorted(self.root.glob("*/result.json")):
            with suppress(OSError, ValueError, RecursionError):
                key, record = file.parent.name, json.loads(file.read_bytes())
                if isinstance(record, dict) and self.weights_file(key).stat().st_size == record.get("size"):
                    yield key, record

    def spoilt(self, key: str) -> Path | None:
        """For a stage that is not done though it once was: the file that was set aside, is cut, or is gone."""
        record, weights = self.result_file(key), self.weights_file(key)
        aside = (file.with_name(f"{file.name}.corrupt") for file in (record, weights))
        return next((file for file in aside if file.exists()), weights if record.exists() else None)

    def result_file(self, key: str) -> Path:
        return self.root / key / "result.json"

    def weights_file(self, key: str) -> Path:
        return self.root / key / "weights.safetensors"

    def keep(self, file: Path, sha256: str, source: str = "") -> None:
        """Have a copy of published weights here, where every worker can read it, and know of which source it is."""
        place = self.kept_file(sha256)
        if not place.exists():
            write(place, lambda aside: shutil.copyfile(file, aside))
        if source and self.known(source) != sha256:
            text = Known(sha256=sha256).model_dump_json()
            write(self.known_file(source), lambda aside: aside.write_text(text))

    def known(self, source: str) -> str | None:
        """The SHA-256 of what was last kept of this source."""
        try:
            return Known.model_validate_json(self.known_file(source).read_bytes()).sha256
        except (OSError, ValidationError):
            return None

    def published(self, sha256: str) -> Path:
        """The kept file of this SHA-256. Raises `Damaged` when it is not there whole."""
        file = self.kept_file(sha256)
        with suppress(FileNotFoundError, NotADirectoryError):  # or set aside by another worker meanwhile
            if digest(file) == sha256:
                return file
            set_aside(file)
        raise Damaged(f"the published weights {sha256} are not in the store {self.root}; run again to fetch them")

    def kept_file(self, sha256: str) -> Path:
        return self.root / PUBLISHED / f"{sha256}.weights"

    def known_file(self, source: str) -> Path:
        return self.root / PUBLISHED / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.json"

    def save_state(self, key: str, epoch: int, state: dict[str, Any]) -> None:
        """Keep where a stage is after an epoch, and drop where it was before, but for the last."""
        states.save(self.root / key, epoch, state, guard=self.guard)

    def load_state(self, key: str, *, say: Callable[[str], object] = bool) -> dict[str, Any] | None:
        """Where the stage last was, if it was begun; a damaged state is set aside, and so is one with code in it."""
        return states.last(self.root / key, say=say)

    def state(self, key: str, epoch: int) -> dict[str, Any] | None:
        """Where the stage was after an epoch, if that can be seen here by now; nothing is set aside."""
        return states.after(self.root / key, epoch)

    def begun(self, key: str) -> int:
        """The last epoch from which a stage that is not done can go on; 0 if there is none."""
        return max(map(states.epoch_of, states.files(self.root / key)), default=0)

    def save_pause(self, key: str, history: Sequence[dict[str, float]]) -> None:
        """Note what a stage that is not done had in its epochs so far, where nobody has to load its weights for it."""
        text = Pause(history=tuple(history)).model_dump_json()
        write(self.root / key / PAUSE, lambda aside: aside.write_text(text), guard=self.guard)
        states.drop(states.files(self.root / key)[:-1])  # many may pause, and never go on

    def paused(self, key: str) -> Sequence[dict[str, float]]:
        """The epochs of a stage that paused; none if it did not, or its state is gone."""
        try:
            history = Pause.model_validate_json((self.root / key / PAUSE).read_bytes()).history
        except (OSError, ValidationError):
            return ()
        return history if self.begun(key) >= len(history) else ()

    def drop_state(self, key: str) -> None:
        states.drop([self.root / key / PAUSE, *states.files(self.root / key)])

    def measured(self, result: Result) -> bool:
        """Whether these very weights were read back once and had this very score."""
        file = self.root / result.key / "measured.json"
        try:
            return Measurement.model_validate_json(file.read_bytes()) == _measurement(result)
        except (FileNotFoundError, ValidationError):
            return False

    def mark_measured(self, result: Result) -> None:
        text = _measurement(result).model_dump_json()
        write(self.root / result.key / "measured.json", lambda path: path.write_text(text))

    def writable(self) -> None:
        """Raise `Invalid` when nothing can be stored here."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise Invalid(
                f"the store {self.root} cannot be written: {error.strerror}", ("resources", "store")
            ) from None


def _measurement(result: Result) -> Measurement:
    return Measurement(sha256=result.sha256, score=result.score)
