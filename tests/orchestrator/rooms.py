"""Rooms of the tests, and who starts in them."""

import itertools

from orchestrator.resources import Placement
from orchestrator.room import Node, Room

BIG, SMALL = Placement(workers=8, gpus=1), Placement()
TWO = [Node("a", {"CPU": 8, "GPU": 4}), Node("b", {"CPU": 8, "GPU": 4})]


def started(room: Room, *models: str) -> list[str]:
    """Those of these stages, the most urgent first, that start now."""
    waiting, found = list(models), []
    while True:
        may = room.chooser()
        # Of equal models the first that does not fit stands for the others, as in the frontier.
        model = next((name for name in dict.fromkeys(waiting) if may(name)), None)
        if model is None:
            return found
        waiting.remove(model)
        found.append(model)
        number = next(n for n in itertools.count(len(room.taken)) if f"{model}{n}" not in room.taken)
        room.take(f"{model}{number}", model)
