"""The card of a student that is not registered, as of one that nobody taught: made of what the store has."""

from __future__ import annotations

from orchestrator.card import card
from orchestrator.prepared import prepare
from orchestrator.study import Study


def described(study: Study, key: str, *, name: str) -> str:
    """Of a stage with which a student of a study is trained in full; empty if the store has it no more."""
    from orchestrator.session import summary_of  # brings Ray

    prepared = prepare(study).at_a_glance()
    board = prepared.board(prepared.frontier(prepared.stored))
    summary = summary_of(prepared, board, {})
    place = f"{study.resources.store}/{key}"
    for answer in summary["answers"]:
        for outcome in (answer["baseline"], *answer["ranking"]):
            if outcome is not None and key in outcome["keys"]:
                own = {**answer, "best": outcome}
                return card(prepared, summary, own, board.rows[key], name=name, address=place)
    return ""
