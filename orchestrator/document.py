"""A tree of plain values that remembers where each was written, so that an error can name the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.masking import without_secrets
from trainers.call import Invalid

Where = tuple[str | int, ...]  # the keys and list positions that lead to a value, from the outside in

LINES = 10  # of one message


@dataclass(frozen=True)
class Document:
    """Dicts, lists, words, numbers, booleans and None, as read from YAML."""

    source: str  # the file
    text: str
    tree: Any
    places: dict[Where, str]  # `demo.yaml:12` for each key and list item

    def refusal(self, mistakes: Sequence[Invalid]) -> Invalid:
        """One error for several mistakes, each with the place of its key or of the nearest key around it.

        Its `where` is empty: the message says it all.
        """
        lines = [f"{self._place(mistake.where)}: {located(mistake)}" for mistake in mistakes[:LINES]]
        if len(mistakes) > LINES:
            lines.append(f"... and {len(mistakes) - LINES} more")
        return Invalid("\n".join(printable(without_secrets(line)) for line in lines))

    def _place(self, where: Where) -> str:
        around = (where[:n] for n in range(len(where), -1, -1))
        return next((self.places[key] for key in around if key in self.places), self.source)


def located(mistake: Invalid) -> str:
    """`recipe.epochs: ...what is wrong...`"""
    key = ".".join(f"{part:.100}" if isinstance(part, str) else str(part) for part in mistake.where)
    return f"{key}: {mistake}" if key else str(mistake)


def printable(text: str) -> str:
    """The text with everything escaped that could play tricks on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
