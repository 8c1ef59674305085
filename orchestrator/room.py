"""What fits on a cluster beside what runs there: which stages may start, so that none waits for what others hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.resources import Placement, amount_of
from trainers.call import Invalid

SLACK = 1e-9  # amounts are sums of decimals
# What whoever watches over several workers takes, on any node: a part of a CPU could keep its own workers out for ever.
WATCHER = {"memory": 1.0}


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and how much of each kind it has."""

    name: str
    has: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def suits(self, wanted: Placement) -> bool:
        """Whether it has the labels that are asked for."""
        return all(self.labels.get(name) == value for name, value in wanted.labels.items())


class Room:
    """The nodes, and which workers are on them. Ray places the workers; this only counts, so that a stage is handed out
    when it fits. Two stages that each wait for the rest of what the other has cannot come about."""

    def __init__(
        self, nodes: Iterable[Node], placements: Mapping[str, Placement], *, stages_at_once: int | None = None
    ) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.placements = dict(placements)  # by model
        self.stages_at_once = stages_at_once
        self.taken: dict[str, tuple[str, list[str]]] = {}  # by place, the model that is trained and its workers' nodes
        self._found: dict[str, list[str]] = {}  # by model, where the last chooser has found room
        self._spare: dict[str, dict[str, float]] = {}  # what it has left
        self._awaited: dict[str, str] = {}  # by model, the place by whose end there is room for one that waits

    def change(self, nodes: Iterable[Node]) -> None:
        """Nodes have come or gone."""
        self.nodes = {node.name: node for node in nodes}

    def check(self) -> None:
        """Raise `Invalid` at ("resources",) for a model whose stages fit nowhere, even if nothing runs."""
        for name, wanted in self.placements.items():
            if self._place({node.name: node.has for node in self.nodes.values()}, wanted) is None:
                raise Invalid(f"a stage of {name} needs {self._missing(wanted)}", ("resources",))

    def hosts(self) -> list[Node]:
        """The nodes on which a process of any model could be that reads the store: a worker, or who watches over
        several, which may be anywhere."""
        wanted = self.placements.values()
        if any(one.apart for one in wanted):
            return list(self.nodes.values())
        return [node for node in self.nodes.values() if any(node.suits(one) and fits(one, node.has) for one in wanted)]

    def slots(self, model: str) -> int:
        """How many stages of a model fit at once if nothing else runs."""
        wanted, empty = self.placements[model], {node.name: dict(node.has) for node in self.nodes.values()}
        most = min(one for one in (wanted.stages_at_once, self.stages_at_once, 2**31) if one)
        count = 0
        while count < most and (places := self._place(empty, wanted)) is not None:
            _subtract(empty, places, wanted)
            count += 1
        return count

    def most(self) -> int:
        """How many stages run at once at the most: those of the model of which most fit, or one of each where they do
        not get in each other's way."""
        room, count = self.emptied(), 0
        while model := next(filter(room.chooser(), self.placements), None):
            room.take(str(count), model)
            count += 1
        return max(count, *(self.slots(model) for model in self.placements))

    def emptied(self) -> Room:
        """The same room, with nothing in it."""
        return Room(self.nodes.values(), self.placements, stages_at_once=self.stages_at_once)

    def least(self, costs: Iterable[tuple[str, float]]) -> float:
        """How long stages, each with its model and its length with all workers, occupy all there is of some kind."""
        work, has = defaultdict[str, float](float), defaultdict[str, float](float)
        for model, cost in costs:
            wanted = self.placements[model]
            for kind, amount in taken_by(wanted).items():
                work[kind] += cost * amount * wanted.workers
        for node in self.nodes.values():
            for kind, amount in node.has.items():
                has[kind] += amount
        times = [amount / has[kind] for kind, amount in work.items()]
        return max(times, default=0.0)

    def chooser(self) -> Callable[[str], bool]:
        """Whether a stage of a model may start now; to be asked of models from the most urgent on.

        For one that does not fit the room is kept that it will have: those after it take only what it does not need, so
        that many small stages cannot keep a large one waiting for ever. Where one of those that run has enough, that is
        its room, and what is free beside it may be taken meanwhile.
        """
        free, self._found = self._free(), {}
        self._spare = free
        left = {name: dict(has) for name, has in free.items()}  # of which nothing is promised
        models = Counter(model for model, _ in self.taken.values())

        def may(model: str) -> bool:
            wanted = self.placements[model]
            if self.stages_at_once and len(self.taken) >= self.stages_at_once:
                return False
            if wanted.stages_at_once and models[model] >= wanted.stages_at_once:
                return False
            places = self._place(free, wanted)
            if places is None:
                self._keep(model, free, left)
                return False
            self._awaited.pop(model, None)
            self._found[model] = places
            return True

        return may

    def take(self, place: str, model: str, *, batch: int = 0) -> float:
        """A stage of a model starts, for which the last chooser has found room, with as many workers as can share its
        batch evenly. -> what part they are of all that it could have."""
        workers = _even(self._found.pop(model), batch)
        self.taken[place] = model, workers
        return len(workers) / len(_even([model] * self.placements[model].workers, batch))

    def workers(self, place: str) -> int:
        """How many a stage that has started has."""
        return len(self.taken[place][1])

    def stands(self, place: str) -> bool:
        """Whether all nodes of a stage's workers are still there."""
        return all(name in self.nodes for name in self.taken[place][1])

    def grow(self, place: str, *, batch: int, least: int) -> bool:
        """Take for a stage that runs what the last chooser has left over, if that makes `least` workers or more; ->
        whether it does. The chooser must have been asked of all that wait."""
        model, workers = self.taken[place]
        wanted = self.placements[model]
        free = {name: dict(has) for name, has in self._spare.items()}
        _subtract(free, [name for name in workers if name in free], wanted, times=-1)
        more = _even(self._place(free, wanted) or [], batch)
        if len(more) < max(least, len(workers) + 1):
            return False
        _subtract(free, more, wanted)
        self.taken[place], self._spare = (model, more), free
        return True

    def give(self, place: str) -> None:
        """A stage has ended."""
        self.taken.pop(place, None)

    def _free(self) -> dict[str, dict[str, float]]:
        """What is left of each node."""
        free = {node.name: dict(node.has) for node in self.nodes.values()}
        for model, places in self.taken.values():
            _subtract(free, [name for name in places if name in free], self.placements[model])
        return free

    def _place(self, free: Mapping[str, Mapping[str, float]], wanted: Placement) -> list[str] | None:
        """The nodes of the workers of a stage, on as few as may be; None if not even the fewest fit."""
        room = {name: fits(wanted, has) for name, has in free.items() if self.nodes[name].suits(wanted)}
        places: list[str] = []
        for name in sorted(room, key=lambda name: (-room[name], name)):
            places += [name] * min(room[name], wanted.workers - len(places))
        return places if len(places) >= wanted.fewest else None

    def _reserved(self, free: Mapping[str, Mapping[str, float]], wanted: Placement) -> list[str]:
        """Where a stage that does not fit now will be first: on nodes that are large enough, the freest."""
        empty = {node.name: node.has for node in self.nodes.values() if node.suits(wanted)}
        room = {name: fits(wanted, has) for name, has in empty.items()}
        now = {name: fits(wanted, free[name]) for name in room}
        places: list[str] = []
        for name in sorted(room, key=lambda name: (-now[name], -room[name], name)):
            places += [name] * min(room[name], wanted.fewest - len(places))
        return places

    def _keep(self, model: str, free: dict[str, dict[str, float]], left: dict[str, dict[str, float]]) -> None:
        """Keep room for a stage that does not fit: of what is `free` for those after it, and of what is `left` for it.

        It stays with the end for which it waits, so that what is kept is still there then.
        """
        wanted = self.placements[model]
        if self._place({node.name: node.has for node in self.nodes.values()}, wanted) is None:
            return  # nodes are gone: whatever ends, it has to wait for others to come
        awaited = self._enough(wanted, left, self._awaited.get(model))
        if awaited is None:
            self._awaited.pop(model, None)
            places = self._reserved(free, wanted)
            _subtract(free, places, wanted)
            _subtract(left, places, wanted)
            return
        self._awaited[model] = awaited
        later = self._after(awaited, left)
        freed = {name: fits(wanted, later[name]) - fits(wanted, left[name]) for name in left}
        room = {name: fits(wanted, has) for name, has in later.items() if self.nodes[name].suits(wanted)}
        places = []
        for name in sorted(room, key=lambda name: (-freed[name], -room[name], name)):
            places += [name] * min(room[name], wanted.fewest - len(places))
        _subtract(later, places, wanted)
        _subtract(left, places, wanted)
        for name, has in free.items():
            free[name] = {kind: min(amount, later[name].get(kind, 0.0)) for kind, amount in has.items()}

    def _enough(self, wanted: Placement, left: Mapping[str, Mapping[str, float]], before: str | None) -> str | None:
        """The stage that runs whose end makes room for one that waits: the one `before`, or that of most room."""
        now = {name: fits(wanted, has) for name, has in left.items() if self.nodes[name].suits(wanted)}
        short = wanted.fewest - sum(now.values())

        def gain(place: str) -> int:
            there = [name for name in dict.fromkeys(self.taken[place][1]) if name in now]
            later = self._after(place, {name: left[name] for name in there})
            return sum(fits(wanted, later[name]) - now[name] for name in there)

        if before in self.taken and gain(before) >= short:
            return before
        gains = {place: gain(place) for place in self.taken}
        best = max(gains, key=gains.__getitem__, default=None)
        return best if best is not None and gains[best] >= short else None

    def _after(self, place: str, left: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        """What is left of these nodes once a stage has ended."""
        model, workers = self.taken[place]
        later = {name: dict(has) for name, has in left.items()}
        _subtract(later, [name for name in workers if name in later], self.placements[model], times=-1)
        return later

    def _missing(self, wanted: Placement) -> str:
        """What a stage needs that the cluster has not got."""
        suited = [node for node in self.nodes.values() if node.suits(wanted)]
        have = ", ".join(amount_of(kind, sum(node.has.get(kind, 0) for node in suited)) for kind in wanted.demand)
        with_labels = f" of which {len(suited)} have these labels" if wanted.labels else ""
        count = sum(fits(wanted, node.has) for node in suited)
        return (
            f"{wanted.needs}, but the cluster has {have} on "
            f"{len(self.nodes)} node(s){with_labels}, room for {count} worker(s); ask for less or add nodes"
        )


def fits(wanted: Placement, has: Mapping[str, float]) -> int:
    """How many workers there is room for on a node with so much."""
    return max(0, min(int((has.get(kind, 0.0) + SLACK) // amount) for kind, amount in taken_by(wanted).items()))


def taken_by(wanted: Placement) -> dict[str, float]:
    """What a worker takes of its node, by Ray's names. A part of a GPU is a part of one: with .4 two have room on it,
    and each takes half, for nobody like it can have the rest."""
    demand = wanted.demand
    if 0 < wanted.gpus < 1:
        demand["GPU"] = 1 / int((1 + SLACK) / wanted.gpus)
    if wanted.apart and wanted.memory:
        demand["memory"] += WATCHER["memory"]
    return demand


def _subtract(free: dict[str, dict[str, float]], places: Iterable[str], wanted: Placement, *, times: int = 1) -> None:
    taken = taken_by(wanted)
    for name in places:
        for kind, amount in taken.items():
            free[name][kind] = free[name].get(kind, 0.0) - times * amount


def _even(places: list[str], batch: int) -> list[str]:
    """The first of these, as many as share a batch evenly; of a batch of 0 all."""
    return places[: next((count for count in range(len(places), 0, -1) if batch % count == 0), 0)]
