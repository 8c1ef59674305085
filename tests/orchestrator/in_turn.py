"""Studies run one after another in one process, each as `tapath run` runs it, on a Ray that is started once."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext

from orchestrator import cluster
from orchestrator.session import session
from orchestrator.study import load


def main(files: list[str], sets: dict[str, list[str]]) -> dict[str, int]:
    """-> the exit code of each. `sets`: for some of the files, what `--set` would change."""
    with cluster.connected(None):
        cluster.connected = lambda address: nullcontext()  # each study would start its own, and take it down
        return {file: session(load(file, sets.get(file, [])), manner="quiet") for file in files}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[2:], json.loads(sys.argv[1]))))
