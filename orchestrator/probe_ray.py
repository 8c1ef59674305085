"""Run in a process of its own: whether Ray starts here, or is reached at an address, and runs a task."""

from __future__ import annotations

import sys

from orchestrator import reach


def probe(address: str | None) -> str:
    """Start or reach Ray as a run does; -> what a task there says of itself. Raises whatever Ray does."""
    reach.at_home(address)
    from orchestrator import cluster  # after that: it imports Ray

    with cluster.connected(address):
        return cluster.greeting()


if __name__ == "__main__":
    print(probe(sys.argv[1] if len(sys.argv) > 1 else None))
