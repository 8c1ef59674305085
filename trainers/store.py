"""Results and weights by the key of their stage, in a folder or a bucket that every worker can see.

A result is there whole or not at all: weights are put first, whole, then `result.json`, which names their SHA-256.
Nothing that is read back can run code: weights are safetensors, and states are opened with `weights_only`. Nothing
absolute is stored, so a store may be moved, from a folder to a bucket too.

    <store>/<key>/result.json          the stage, its score, its curves, the digest of its weights
    <store>/<key>/weights.safetensors  what the stage learned
    <store>/<key>/measured.json        that the weights, read back, have this score
    <store>/<key>/paused.json          the epochs of a stage that paused, until it is done
    <store>/<key>/lease-<number>       who trains it now: see `trainers.lease`
    <store>/<key>/state-<epoch>-<digest>.pt   where a half-trained stage stopped, the last two; gone when it is done
    <store>/<key>/sources.json         by which code it was trained so far; gone with it
    <store>/published/<sha256>.weights        weights that models start from
    <store>/published/<digits>.json           which of them a path or a URL was, by its own SHA-256: it may hold secrets
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainers import states
from trainers.address import at
from trainers.atomic import digest
from trainers.call import Invalid
from trainers.full import fitting
from trainers.place import Found, write
from trainers.records import Header, Known, Measurement, Pause
from trainers.result import FORMAT, Result
from trainers.spec import Stage

RESULT, WEIGHTS, MEASURED = "result.json", "weights.safetensors", "measured.json"
PUBLISHED = "published"
PAUSE, SOURCES = "paused.json", "sources.json"


class Damaged(RuntimeError):
    """A stored file is not what was written; it was set aside."""


class Store:
    """Results and half-trained states in one place."""

    def __init__(self, root: str | Path, *, guard: Callable[[], None] = lambda: None) -> None:
        """A folder, or an address as in s3://bucket/prefix. `guard` is called before anything of a stage is written for
        good; it raises if that is not ours to do."""
        self.place, self.guard = at(root), guard

    @property
    def root(self) -> Path | str:
        return self.place.root

    @contextmanager
    def glimpse(self) -> Iterator[None]:
        """What is asked in this block is answered by what the store has when it begins, if that is quicker."""
        before = self.place
        self.place = before.glimpse()
        try:
            yield
        finally:
            self.place = before

    def get(self, stage: Stage) -> Result | None:
        """The stage's result if it is stored whole: readable, of this very stage, its weights of the recorded size."""
        result = self._record(stage)
        weights = self.weights_found(stage.key) if result else None
        return result if result and weights and weights.size == result.size else None

    def _record(self, stage: Stage) -> Result | None:
        """What is noted of the stage. Raises `Invalid` for what must be left alone: see there."""
        name = f"{stage.key}/{RESULT}"
        for one in (name, f"{stage.key}/{WEIGHTS}"):
            self.place.confine(one)
        try:
            text = self.place.read(name)
            version = Header.model_validate_json(text).format
            if version > FORMAT:
                file = self.place.file(name)
                raise Invalid(f"{file} was written by a newer tapath (format {version}, this one reads {FORMAT})")
            result = Result.model_validate_json(text)
        except FileNotFoundError:
            return None
        except ValidationError:
            self.place.set_aside(name)
            return None
        if result.stage != stage:
            raise Invalid(f"{self.place.file(name)} holds another stage than its key says; move that folder away")
        # The stage that was asked for, and not one just like it: a driver keeps thousands, each with its whole lineage.
        return result.model_copy(update={"stage": stage})

    def check(self, stage: Stage) -> bool:
        """Whether the stage is stored whole, every byte of its weights included. Damaged weights are set aside.

        They are not read again where the place tells that they are still those that were read back when stored.
        """
        result = self._record(stage)
        found = self.weights_found(stage.key) if result else None
        if result is None or found is None:
            return False
        note = self._measurement(result) if found.version else None
        if note is not None and note.version == found.version:
            return True
        try:
            with self.weights_copy(result):
                pass
        except Damaged:
            return False
        if note is not None:  # the store was moved, and its place calls the same content another version
            with suppress(OSError):  # who may not write reads it again the next time
                self.mark_measured(result)
        return True

    def weights_found(self, key: str) -> Found | None:
        """What is known of the weights of a stage, before there is a result too; None if they cannot be seen here."""
        return self.place.look(f"{key}/{WEIGHTS}")

    def weights(self, result: Result) -> dict[str, Tensor]:
        """The weights of a result. Raises `Damaged` when the file is not the one that was stored."""
        with self.weights_copy(result) as file:
            try:
                return load_file(file)
            except SafetensorError as error:  # somebody made the record fit it
                aside = self.place.set_aside(f"{result.key}/{WEIGHTS}")
                raise Damaged(f"the weights of stage {result.key} are none ({aside}): {error}") from None

    @contextmanager
    def weights_copy(self, result: Result) -> Iterator[Path]:
        """The same as a file to read, while the block lasts."""
        name = f"{result.key}/{WEIGHTS}"
        aside: Path | str = self.place.file(name)
        with ExitStack() as held:
            try:
                file = held.enter_context(self.place.copy(name))
                whole = digest(file) == result.sha256
                aside = aside if whole else self.place.set_aside(name)
            except FileNotFoundError:  # or set aside by another meanwhile
                whole = False
            if not whole:
                raise Damaged(f"the weights of stage {result.key} are damaged ({aside}); run again to train it anew")
            yield file

    def put(
        self, stage: Stage, weights: dict[str, Tensor], *, check: Callable[[Result], object] = bool, **facts: Any
    ) -> Result:
        """Store a finished stage; `facts` are the other fields of `Result`.

        `check` gets the result while its weights can be read and before anybody else can see it; if it raises,
        there is no result.
        """
        name = f"{stage.key}/{WEIGHTS}"
        self.guard()
        self.place.remove(f"{stage.key}/{RESULT}")  # of weights that were damaged, and not of these
        with self.place.draft(name) as draft, fitting(self.place.file(name), weights, folder=draft.parent):
            save_file(weights, draft)
            sha256, size = digest(draft), draft.stat().st_size
            self.place.settle(draft, name, guard=self.guard)
        result = Result(stage=stage, sha256=sha256, size=size, **facts)
        check(result)
        write(self.place, f"{stage.key}/{RESULT}", result.model_dump_json(indent=1), guard=self.guard)
        return result

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What was written of every finished stage, by key in order, as plain data and so of whichever version.

        Passed over: what cannot be read, and what has no weights of the recorded size.
        """
        weights = self.place.find(f"*/{WEIGHTS}")
        for name, text in self.place.read_all(self.place.find(f"*/{RESULT}")):
            with suppress(ValueError, RecursionError):
                key, record = name.split("/")[0], json.loads(text)
                found = weights.get(f"{key}/{WEIGHTS}")
                if isinstance(record, dict) and found is not None and found.size == record.get("size"):
                    yield key, record

    def spoilt(self, key: str) -> str | None:
        """For a stage that is not done though it once was, by its name: what was set aside, is cut, or is gone."""
        names = self.place.find(f"{key}/*")
        aside = (f"{key}/{name}.corrupt" for name in (RESULT, WEIGHTS))
        left = f"{key}/{WEIGHTS}" if f"{key}/{RESULT}" in names else None
        return next((name for name in aside if name in names), left)

    def result_file(self, key: str) -> Path | str:
        return self.place.file(f"{key}/{RESULT}")

    def weights_address(self, key: str) -> str:
        """Of its weights, from whichever folder one looks."""
        return f"{self.place.address}/{key}/{WEIGHTS}"

    def keep(self, file: Path, sha256: str, source: str = "") -> None:
        """Have a copy of published weights here, where every worker can read it, and know of which source it is."""
        name = _kept(sha256)
        self.place.tidy(PUBLISHED)
        if self.place.look(name) is None:
            with self.place.draft(name) as draft:
                shutil.copyfile(file, draft)
                self.place.settle(draft, name)
        if source and self.known(source) != sha256:
            write(self.place, _known(source), Known(sha256=sha256).model_dump_json())

    def known(self, source: str) -> str | None:
        """The SHA-256 of what was last kept of this source."""
        try:
            return Known.model_validate_json(self.place.read(_known(source))).sha256
        except (OSError, ValidationError):
            return None

    def published(self, sha256: str) -> Path:
        """The kept file of this SHA-256. Raises `Damaged` when it is not there whole."""
        name = _kept(sha256)
        with suppress(FileNotFoundError):  # or set aside by another worker meanwhile
            file = self.place.lasting_copy(name)
            if digest(file) == sha256:
                return file
            self.place.set_aside(name)
        raise Damaged(f"the published weights {sha256} are not in the store {self.root}; run again to fetch them")

    def save_state(self, key: str, epoch: int, state: dict[str, Any]) -> None:
        """Keep where a stage is after an epoch, and drop where it was before, but for the last."""
        states.save(self.place, key, epoch, state, guard=self.guard)

    def last_state(self, key: str, *, say: Callable[[str], object] = bool) -> tuple[str, dict[str, Any]] | None:
        """Where the stage last was, with the name of the file, if it was begun; a damaged state is set aside, and so is
        one with code in it."""
        return states.last(self.place, key, say=say)

    def state(self, name: str) -> dict[str, Any] | None:
        """The state in the file of this name, if it can be seen here by now; nothing is set aside."""
        with suppress(FileNotFoundError):
            return states.read(self.place, name)
        return None

    def begun(self, key: str) -> int:
        """The last epoch from which a stage that is not done can go on; 0 if there is none."""
        return max(map(states.epoch_of, states.names(self.place, key)), default=0)

    def save_pause(self, key: str, history: Sequence[dict[str, float]]) -> None:
        """Note what a stage that is not done had in its epochs so far, where nobody has to load its weights for it."""
        write(self.place, f"{key}/{PAUSE}", Pause(history=tuple(history)).model_dump_json(), guard=self.guard)
        states.drop(self.place, states.names(self.place, key)[:-1])  # many may pause, and never go on

    def paused(self, key: str) -> Sequence[dict[str, float]]:
        """The epochs of a stage that paused; none if it did not, or its state is gone."""
        try:
            history = Pause.model_validate_json(self.place.read(f"{key}/{PAUSE}")).history
        except (OSError, ValidationError):
            return ()
        return history if self.begun(key) >= len(history) else ()

    def drop_state(self, key: str) -> None:
        states.drop(self.place, [f"{key}/{PAUSE}", f"{key}/{SOURCES}", *states.names(self.place, key)])

    def measured(self, result: Result) -> bool:
        """Whether these very weights were read back once and had this very score."""
        return self._measurement(result) is not None

    def mark_measured(self, result: Result) -> None:
        """Note that they were, and had."""
        found = self.weights_found(result.key)
        made = Measurement(sha256=result.sha256, score=result.score, version=found.version if found else "")
        write(self.place, f"{result.key}/{MEASURED}", made.model_dump_json(exclude_defaults=True))

    def _measurement(self, result: Result) -> Measurement | None:
        """The note, if it is of these very weights and this very score."""
        try:
            made = Measurement.model_validate_json(self.place.read(f"{result.key}/{MEASURED}"))
        except (FileNotFoundError, ValidationError):
            return None
        return made if (made.sha256, made.score) == (result.sha256, result.score) else None

    def writable(self) -> None:
        """Raise `Invalid` when nothing can be stored here."""
        self.place.writable()


def _kept(sha256: str) -> str:
    return f"{PUBLISHED}/{sha256}.weights"


def _known(source: str) -> str:
    return f"{PUBLISHED}/{hashlib.sha256(source.encode()).hexdigest()[:16]}.json"
