"""What strategies ask of the scores that are known so far."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.lattice import Path, Scores


def known(paths: Iterable[Path], scores: Scores) -> bool:
    """Whether all of these have scores. Looked for from the last on, which is mostly the last to be trained: whoever is
    asked again when the first one that it missed has come is seldom asked in vain."""
    return all(path in scores for path in reversed(list(paths)))
