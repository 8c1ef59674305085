"""What a summary or a board says in sentences: the answer, and what to beware of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.answers import ranked
from orchestrator.board import Board
from orchestrator.summary import outcomes
from orchestrator.words import arrow, between, clock, epochs, listed, plain, way


def verdict(summary: Mapping[str, Any], *, reasons: bool = True) -> list[str]:
    """The answer for each student in a sentence, followed by what to beware of; then what holds for all.

    `reasons`: say why the first stage failed, if any did.
    """
    said = []
    for answer in summary["answers"]:
        said += [headline(summary, answer), *remarks(summary, answer)]
    return said + cautions(summary, reasons=reasons)


def remarks(summary: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """What to beware of in the answer for one student."""
    said = _paid(summary, answer)
    if answer["best"]:
        said += _ties(answer)
    return said + _swept(summary, answer) + _selected(summary, answer) + _tested(summary, answer)


def cautions(summary: Mapping[str, Any], *, reasons: bool = True) -> list[str]:
    """What to beware of in all answers. `reasons`: say why the first stage failed, if any did."""
    counts, said = summary["counts"], []
    found = [answer for answer in summary["answers"] if answer["best"]]
    if len(summary["seeds"]) > 1 and found:
        said.append(f"Means over {len(summary['seeds'])} seeds, compared seed by seed.")
    elif any(answer["baseline"] or len(answer["ranking"]) > 1 for answer in found):
        said.append("Measured with one seed: a difference may be noise.")
    if open_stages := _open(summary):
        said.append(f"{_stages(open_stages)} still to be trained.")
    if others := [stage["other_code"] for stage in summary["stages"] if stage["other_code"]]:
        names = listed(list(dict.fromkeys(name for one in others for name in one)))
        said.append(f"{_stages(len(others))} learnt by other code of {names} than there is now.")
    if counts["failed"]:
        lost = f", and {counts['lost']} that needed them could not start" if counts["lost"] else ""
        first = next(stage for stage in summary["stages"] if stage["state"] == "failed")
        why = f"{arrow(first['path'])}: {plain(first['reason'])}"
        said.append(f"{_stages(counts['failed'])} failed{lost}." + (f" The first was {why}" if reasons else ""))
    return said


def leader(board: Board) -> str:
    """The best taught path to each student so far, and its lead over the student alone."""
    rows = list(board.rows.values())
    found = []
    for student in dict.fromkeys(row.path.models[-1] for row in rows if row.role == "student"):
        known = outcomes(board, seeds={row.seed for row in rows}, student=student)
        taught = ranked(outcome for path, outcome in known.items() if len(path) > 1)
        if taught:
            alone = known.get((student,))
            lead = f", {taught[0]['score'] - alone['score']:+.3f} over {student} alone" if alone else ""
            found.append(f"{arrow(taught[0]['path'])}  {taught[0]['score']:.3f}{lead}")
    when = "best" if board.count("waiting", "running", "paused") == 0 else "best so far"
    chosen = ", best epochs selected on val" if any(row.selected is not None for row in rows) else ""
    return f"{when} {'; '.join(found)}{chosen}" if found else ""


def question(summary: Mapping[str, Any]) -> str:
    """What a study asks."""
    students = listed([answer["student"] for answer in summary["answers"]])
    return f"What is the best way to teach {students} what {summary['models'][0]['name']} knows?"


def headline(summary: Mapping[str, Any], answer: Mapping[str, Any], *, full: bool = False) -> str:
    """The answer for one student in a sentence. full: with the interval of its score, and its cost."""
    best, baseline, direct = answer["best"], answer["baseline"], answer["direct"]
    metric, root, student = summary["metric"], summary["models"][0]["name"], answer["student"]
    so_far = _open(summary) > 0
    if not best:
        return f"No path from {root} to {student} is trained {'yet' if so_far else 'to the end'}."
    reached = f"{metric} {best['score']:.3f}"
    cost = f", for {clock(best['seconds'])} of training" if full and best["seconds"] is not None else ""
    if full and best["interval"]:
        reached += f" ({' to '.join(f'{end:.3f}' for end in best['interval'])})"
    if baseline and best["gain_over_baseline"] <= 0:
        ahead = f"{'So far no' if so_far else 'No'} path from {root} to {student} beats {student} alone"
        return (
            f"{ahead}, {metric} {baseline['score']:.3f}: the best, {arrow(best['path'])}, has {reached}"
            f" ({best['gain_over_baseline']:+.3f}){cost}."
        )
    gains = [f"{best['gain_over_baseline']:+.3f} over {student} alone"] if baseline else []
    if direct and direct["path"] != best["path"]:
        gains.append(f"{best['gain_over_direct']:+.3f} over {arrow(direct['path'])} directly")
    if best["gain_over_same_compute"] is not None:
        gains.append(f"{best['gain_over_same_compute']:+.3f} over {student} alone with the same compute")
    start = "So far the best way" if so_far else "The best way"
    return f"{start} from {root} to {student} is {arrow(best['path'])}: {', '.join([reached, *gains])}{cost}."


def yardsticks(
    summary: Mapping[str, Any], answer: Mapping[str, Any], outcome: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What a path stands beside, as far as it is trained: the `name` and `outcome` of each, and what the path's `gain`
    over it is, with its `interval`."""
    if outcome is None:
        return []
    student = answer["student"]
    names = {
        "baseline": f"{student} alone",
        "direct": f"{arrow([summary['models'][0]['name'], student])} directly",
        "same_compute": f"{student} alone with the same compute",
    }
    return [
        {
            "name": name,
            "outcome": answer[key],
            "gain": outcome[f"gain_over_{key}"],
            "interval": outcome[f"interval_over_{key}"],
        }
        for key, name in names.items()
        if answer[key] and answer[key]["path"] != outcome["path"]
    ]


def beside(summary: Mapping[str, Any]) -> list[str]:
    """The best path to each student and what it stands beside, a line each: score, what the best gains over it, and
    training time."""
    head, rows = [(summary["metric"], "gain", "95%", "time", "")], list[tuple[str, ...]]()
    for answer in summary["answers"]:
        best = answer["best"]
        rivals = yardsticks(summary, answer, best)
        rows += [_line(best, arrow(best["path"]))] if rivals else []
        for rival in rivals:
            name = rival["name"] + epochs(rival["outcome"])
            rows.append(_line(rival["outcome"], name, gain=rival["gain"], bounds=rival["interval"]))
    several = len(summary["seeds"]) > 1
    return [
        f"  {score:>8}  {gain:>7}" + (f"  {bounds:>16}" if several else "") + f"  {time:>8}  {name}".rstrip()
        for score, gain, bounds, time, name in (head + rows if rows else rows)
    ]


def _line(
    outcome: Mapping[str, Any], name: str, *, gain: float | None = None, bounds: Sequence[float] | None = None
) -> tuple[str, ...]:
    return (
        f"{outcome['score']:.3f}",
        "" if gain is None else f"{gain:+.3f}",
        between(bounds),
        "" if outcome["seconds"] is None else clock(outcome["seconds"]),
        name,
    )


def _paid(summary: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """Whether the assistants were worth it: the best path through one, against all that it stands beside."""
    through = next((outcome for outcome in answer["ranking"] if len(outcome["path"]) > 2), None)
    rivals = yardsticks(summary, answer, through)
    asked = "Did the assistants pay?"
    root, student = summary["models"][0]["name"], answer["student"]
    if not through and answer["best"] and any(edge[1] == student and edge[0] != root for edge in summary["edges"]):
        return [f"{asked} No path through one is trained in full."]
    if not through or not rivals:
        return []
    path = arrow(through["path"])
    if len(through["scores"]) == 1:
        behind = [rival["name"] for rival in rivals if rival["gain"] <= 0]
        if behind:
            return [f"{asked} It does not look so: {path} is not ahead of {listed(behind, 'or')}."]
        return [f"{asked} It looks so: {path} is ahead of {listed([rival['name'] for rival in rivals])}."]
    worse = [rival["name"] for rival in rivals if rival["interval"] and rival["interval"][1] < 0]
    unsure = [rival["name"] for rival in rivals if not rival["interval"] or rival["interval"][0] <= 0]
    if worse:
        return [f"{asked} No: {path} is behind {listed(worse)} beyond the noise."]
    if unsure:
        return [f"{asked} Not shown: the difference of {path} to {listed(unsure, 'and to')} may be noise."]
    return [f"{asked} Yes: {path} is ahead of {listed([rival['name'] for rival in rivals])} beyond the noise."]


def _ties(answer: Mapping[str, Any]) -> list[str]:
    """What cannot be told from the best, and which of these is the cheapest."""
    first, *others = [way(path) for path in answer["tied"]]
    if not others:
        return []
    recommended = way(answer["recommended"])
    cheapest = "it is the cheapest of them" if recommended == first else f"{recommended} is the cheapest of them"
    return [f"A tie: {listed(others, most=4)} cannot be told from {first}; {cheapest}, and recommended."]


def _swept(summary: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """That the best path's settings were chosen by the seeds that judge it, if they were."""
    keys = answer["best"]["keys"] if answer["best"] and len(summary["seeds"]) > 1 else ()
    if not any(stage["setting"] for stage in summary["stages"] if stage["key"] in keys):
        return []
    return ["Its setting was chosen by these seeds, so its lead over what is not swept is flattered by luck."]


def _selected(summary: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """That the best path's score is of epochs that were selected by it, if they were."""
    keys = answer["best"]["keys"] if answer["best"] else ()
    own = [stage for stage in summary["stages"] if stage["key"] in keys]
    chosen = [f"{stage['selected']} of {stage['epochs']}" for stage in own if stage["selected"] is not None]
    if not chosen:
        return []
    epochs = "best epoch" if len(chosen) == 1 else "best epochs"
    return [f"Its score is of its {epochs} {', '.join(chosen)}, selected on val, and so flatters it a little."]


def _tested(summary: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """What the best path has on the test images, and beside it the student alone."""
    best, alone, metric = answer["best"], answer["baseline"], summary["metric"]
    if not best or best["test"] is None:
        return []
    beside = f", {arrow(alone['path'])} alone {alone['test']:.3f}" if alone and alone["test"] is not None else ""
    return [f"On the test images, on which nothing was selected, it has {metric} {best['test']:.3f}{beside}."]


def _open(summary: Mapping[str, Any]) -> int:
    """Stages that are not at their end."""
    counts = summary["counts"]
    number: int = counts["waiting"] + counts["running"] + counts.get("paused", 0)
    return number


def _stages(number: int) -> str:
    return f"{number} stage{'' if number == 1 else 's'}"
