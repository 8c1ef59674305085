"""How a stage has ended, as the process that trained it tells the driver."""

from __future__ import annotations

import traceback
from typing import NamedTuple

from trainers.cohort import Crowded
from trainers.loop import Paused, Stopped
from trainers.result import Result
from trainers.stage import Again, StageFailed


class Finished(NamedTuple):
    """The end of a stage: its score, or why there is none."""

    key: str
    score: float | None = None
    failed: str = ""
    traceback: str = ""
    paused: bool = False
    again: str = ""  # why it is to be handed out once more: as `Again` has it
    left: bool = False  # before its time, with all that it has: to be gone on with somewhere else
    lost: str = ""  # what this process cannot go on without: another takes the stage up, as if this had died


class Unheard(RuntimeError):
    """Nothing is heard of a stage's workers, and nothing can be done for them but to end the process that waits."""


def finished(key: str, how: Result | BaseException, *, leaving: bool) -> Finished:
    """What is told of a stage that ended in this way; `leaving`: its process was told to."""
    match how:
        case Result():
            return Finished(key, score=how.score)
        case Paused():
            return Finished(key, paused=True)
        case Again():
            return Finished(key, again=how.why)
        case Crowded():
            return Finished(key, again="crowded")
        case Stopped():
            return Finished(key, left=True) if leaving else Finished(key, failed="stopped")
        case Unheard():
            return Finished(key, lost=str(how))
        case StageFailed(traceback=said) if said:
            return Finished(key, failed=str(how), traceback=said)
        case _:
            kind = "" if isinstance(how, StageFailed) else f"{type(how).__name__}: "
            said = "".join(traceback.format_exception(how))
            return Finished(key, failed=f"{kind}{how}", traceback=said)
