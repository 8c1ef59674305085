"""A training under way, with all that must be known to go on: its epochs, what was selected, what it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from trainers import sources, workers
from trainers.call import Invalid
from trainers.loop import Epoch, Training
from trainers.selection import Selection, kept
from trainers.spec import Stage
from trainers.store import Store
from trainers.usage import Watch
from trainers.visible import awaited
from trainers.workplace import Entry

FORMAT = 1  # of a state


class Unseen(RuntimeError):
    """A file that another worker has read is not there for this one."""


class Course:
    """The course of a stage's training."""

    def __init__(
        self, stage: Stage, training: Training, selection: Selection, watch: Watch, code: Mapping[str, str]
    ) -> None:
        """`code`: the digests of what trains it, as `sources.of` has them."""
        self.stage, self.training, self.selection, self.watch = stage, training, selection, watch
        self.code, self.noted = dict(code), False  # whether the store knows it
        self.history: list[Entry] = []
        self.seconds = 0.0
        self.started = training.clock.now()
        self.told: set[str] = set()  # the losses of which it was said how much they count

    def resume(self, store: Store, say: Callable[[str], None]) -> None:
        """Bring the training to where it was left. `say` is told of damaged states and of going on before them, and of
        code that has changed since.

        Raises `Invalid` if another version has begun it in another way, and `Unseen`.
        """
        left = self._left(store, say)
        if left is not None:
            self.training.restore(left["training"])
            if self.selection.selects:
                self.selection.restore(left["selection"])
            self.watch.restore(left["usage"])
            self.history, self.seconds = left["history"], left["seconds"]
            if workers.rank() == 0:
                self._compare(sources.noted(store.place, self.stage.key), say)
        self.started = self.training.clock.now() - self.seconds
        self.told = set(self.training.balance.alphas)

    def _compare(self, before: Mapping[str, str], say: Callable[[str], None]) -> None:
        """Remember it for good if the training was begun by other code."""
        self.code = sources.since(before, self.code)
        if names := sources.changed(self.code):
            say(f"goes on with other code of {', '.join(names)} than it was begun with")

    def _left(self, store: Store, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Where it was left, the same for all workers: where the first of them sees it, or not at all."""
        key = self.stage.key
        if workers.rank():
            # By its name: a listing that this node remembers may have an older file of the same epoch.
            name = workers.told(None)
            state = awaited(lambda: store.state(name)) if name else None
            if name and state is None:
                raise Unseen(f"{store.place.file(name)} cannot be seen here; does every node see the store?")
            return state
        damaged: list[str] = []
        name, state = store.last_state(key, say=damaged.append) or ("", None)
        if state is not None and state.get("key") != key:
            name, state = "", None  # somebody copied the state of another stage here
        if state is not None and state["format"] != FORMAT:
            raise Invalid(
                f"{store.place.file(key)} was begun by another version of tapath (states of format "
                f"{state['format']}, this one has {FORMAT}): go on with that one, or remove the folder to begin anew"
            )
        epoch = len(state["history"]) if state else 0
        for text in damaged:
            say(f"{text}; it goes on from {f'epoch {epoch}' if epoch else 'its beginning'}")
        workers.told(name)
        return state

    def note(self, epoch: Epoch, measured: Entry) -> Entry:
        """Take an epoch with what was measured after it; every worker does so. -> its entry."""
        self.selection.offer(epoch.number, measured, self.training.product)
        self.seconds = self.training.clock.now() - self.started
        entry = {"epoch": float(epoch.number), **epoch.metrics, **measured, "seconds": self.seconds}
        self.history.append(entry)
        self.usage = self.watch.note()
        return entry

    def keep(self, store: Store, epoch: Epoch) -> None:
        """Have the store know how to go on after this epoch."""
        self._save(store, epoch.number, epoch.state)

    def halt(self, store: Store) -> None:
        """Have the store know how to go on after the last step of an epoch that was stopped; every worker calls it."""
        if self.training.meter is None:
            return  # it was stopped between two epochs, and all is kept
        state = self.training.state()
        self.seconds = self.training.clock.now() - self.started
        self.usage = self.watch.note()
        if workers.rank() == 0:
            self._save(store, self.training.epoch, state)

    def _save(self, store: Store, number: int, training: dict[str, Any]) -> None:
        state = {
            "format": FORMAT,
            "key": self.stage.key,
            "training": training,
            "history": self.history,
            "seconds": self.seconds,
            "selection": self.selection.state(),
            "usage": self.usage,
        }
        store.save_state(self.stage.key, number, state)
        if not self.noted:
            with suppress(OSError):  # what is said of it is worth no stage
                sources.note(store, self.stage.key, self.code)
                self.noted = True

    def tell(self, say: Callable[[str], None]) -> None:
        """Say each alpha once, when it was found; and in the end which were not."""
        balance = self.training.balance
        for name, alpha in balance.alphas.items():
            if name not in self.told:
                part = f"{balance.ratios[name]:g} times that of the detection losses"
                say(f"alpha of {name} is {alpha:.4g}: its gradient at the student's features is {part}")
                self.told.add(name)
        last = self.training.epoch == self.stage.recipe.epochs
        if last and (never := sorted(balance.ratios.keys() - balance.alphas.keys())):
            too_few = "which counted for nothing: too few batches had a gradient"
            slow = "; the student was not compiled where it was looked for" if self.training.task.fast else ""
            say(f"no alpha was found for {', '.join(never)}, {too_few}{slow}")

    def weights(self) -> dict[str, Tensor]:
        """Those that the training has made."""
        return self.selection.weights or kept(self.training.product)

    def metrics(self) -> Entry:
        """What was measured of these weights."""
        own = {name: value for name, value in self.history[-1].items() if name.startswith("val/")}
        return self.selection.metrics or own

    def facts(self) -> dict[str, Any]:
        """What the result says of how it came about."""
        recipe = self.stage.recipe
        images = recipe.epochs * self.training.batches.steps * recipe.batch
        return {
            "history": self.history,
            "seconds": self.seconds,
            "alphas": self.training.balance.alphas,
            "selected": self.selection.epoch,
            "usage": self.watch.usage(images=images, seconds=self.seconds),
            "sources": self.code,
        }
