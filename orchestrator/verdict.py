"""What a summary or a board says in words: the answer, what to beware of, and the short forms of figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.board import Board, State
from orchestrator.summary import outcomes, ranked


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """The answer in a sentence, then what to beware of."""
    best, baseline, seeds = summary["best"], summary["baseline"], summary["seeds"]
    root, student = summary["models"][0]["name"], summary["models"][-1]["name"]
    counts = summary["counts"]
    open_stages = counts["waiting"] + counts["running"]
    said = [_answer(summary, root, student, so_far=open_stages > 0)]
    if best and len(seeds) == 1 and (baseline or len(summary["ranking"]) > 1):
        said.append("Measured with one seed: a difference may be noise.")
    if best and len(seeds) > 1:
        said.extend(_noise(summary, student))
    said.extend([*_selected(summary), *_tested(summary)])
    if open_stages:
        said.append(f"{_stages(open_stages)} still to be trained.")
    if counts["failed"]:
        lost = f", and {counts['lost']} that needed them could not start" if counts["lost"] else ""
        first = next(stage for stage in summary["stages"] if stage["state"] == "failed")
        why = f"{arrow(first['path'])}: {plain(first['reason'])}"
        said.append(f"{_stages(counts['failed'])} failed{lost}. The first was {why}")
    return said


def clock(seconds: float) -> str:
    """0.4 s, 25 s, 3:20 or 1:02:03."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 or not seconds else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def arrow(path: Iterable[str]) -> str:
    return " > ".join(path)


def plain(text: str) -> str:
    """One line without control characters."""
    return "".join(c if c.isprintable() else " " for c in text.strip())


def tally(counts: Counter[State]) -> str:
    order: list[State] = ["done", "reused", "running", "waiting", "failed", "lost"]
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state])


def leader(board: Board) -> str:
    """The best taught path so far, and its lead over the student alone."""
    rows = list(board.rows.values())
    student = next((row.path.models[-1] for row in rows if row.role == "student"), None)
    if student is None:
        return ""
    known = outcomes(board, seeds={row.seed for row in rows}, student=student)
    found = ranked(outcome for path, outcome in known.items() if len(path) > 1)
    if not found:
        return ""
    alone = known.get((student,))
    lead = f", {found[0]['score'] - alone['score']:+.3f} over {student} alone" if alone else ""
    when = "best" if board.count("waiting", "running") == 0 else "best so far"
    chosen = ", best epochs selected on val" if any(row.selected is not None for row in rows) else ""
    return f"{when} {arrow(found[0]['path'])}  {found[0]['score']:.3f}{lead}{chosen}"


def _answer(summary: Mapping[str, Any], root: str, student: str, *, so_far: bool) -> str:
    best, baseline, direct, metric = (summary[k] for k in ("best", "baseline", "direct", "metric"))
    if not best:
        return f"No path from {root} to {student} is trained {'yet' if so_far else 'to the end'}."
    reached = f"{metric} {best['score']:.3f}"
    if baseline and best["gain_over_baseline"] <= 0:
        ahead = f"{'So far no' if so_far else 'No'} path from {root} to {student} beats {student} alone"
        return (
            f"{ahead}, {metric} {baseline['score']:.3f}: the best, {arrow(best['path'])}, has {reached}"
            f" ({best['gain_over_baseline']:+.3f})."
        )
    gains = [f"{best['gain_over_baseline']:+.3f} over {student} alone"] if baseline else []
    if direct and direct["path"] != best["path"]:
        gains.append(f"{best['gain_over_direct']:+.3f} over {arrow(direct['path'])} directly")
    start = "So far the best way" if so_far else "The best way"
    return f"{start} from {root} to {student} is {arrow(best['path'])}: {', '.join([reached, *gains])}."


def _noise(summary: Mapping[str, Any], student: str) -> list[str]:
    """Which of the best path's leads are no larger than the spread of such a difference between seeds."""
    best = summary["best"]
    rivals = {f"{student} alone": summary["baseline"]}
    for other in filter(None, (summary["direct"], *summary["ranking"][1:2])):
        if other["path"] != best["path"]:
            rivals[arrow(other["path"])] = other
    within = [
        rival
        for rival, other in rivals.items()
        if other and abs(best["score"] - other["score"]) <= math.hypot(best["spread"], other["spread"])
    ]
    means = f"Means over {len(best['scores'])} seeds."
    if not within:
        return [means]
    return [f"{means} The difference to {' and to '.join(within)} is within the spread between seeds: it may be noise."]


def _selected(summary: Mapping[str, Any]) -> list[str]:
    """That the best path's score is of epochs that were selected by it, if they were."""
    path = summary["best"]["path"] if summary["best"] else None
    own = [stage for stage in summary["stages"] if stage["path"] == path and stage["budget"] == 1]
    chosen = [f"{stage['selected']} of {stage['epochs']}" for stage in own if stage["selected"] is not None]
    if not chosen:
        return []
    epochs = "best epoch" if len(chosen) == 1 else "best epochs"
    return [f"Its score is of its {epochs} {', '.join(chosen)}, selected on val, and so flatters it a little."]


def _tested(summary: Mapping[str, Any]) -> list[str]:
    """What the best path has on the test images, and beside it the student alone."""
    best, alone, metric = summary["best"], summary["baseline"], summary["metric"]
    if not best or best["test"] is None:
        return []
    beside = f", {arrow(alone['path'])} alone {alone['test']:.3f}" if alone and alone["test"] is not None else ""
    return [f"On the test images, on which nothing was selected, it has {metric} {best['test']:.3f}{beside}."]


def _stages(number: int) -> str:
    return f"{number} stage{'' if number == 1 else 's'}"
