"""How often `promising` would err on curves of real trainings: those in stores, or of the demo with three seeds.

The rule is asked about every ordered pair of taught trainings of one model with one seed, whatever their teachers or
losses: the first is trained to its end, the second pauses half-way and is given up unless the gain of the first from
there brings it up to the end of the first. Wrong is to give up what ends as high.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import permutations
from pathlib import Path
from typing import Any

from table import show

from orchestrator.strategies.promises import reaches
from trainers.spec import Stage
from trainers.store import Store

DEMO = Path(__file__).parents[1] / "search_spaces" / "demo.yaml"


def demo(folder: Path) -> Path:
    """Train the demo with three seeds; -> its store."""
    sets = {"seeds": [0, 1, 2], "resources.store": str(folder / "store"), "resources.runs": str(folder / "runs")}
    sets["resources.tracking"] = f"sqlite:///{folder}/mlflow.db"
    told = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([sys.executable, "-m", "orchestrator", "run", str(DEMO), *told], check=True)
    return folder / "store"


def curves(root: Path) -> list[list[tuple[float, float]]]:
    """(score half-way, score at the end) of taught trainings, grouped by model, epochs and seed."""
    groups = defaultdict(list)
    store = Store(str(root))
    for file in sorted(root.glob("*/result.json")):
        stage = Stage.model_validate(json.loads(file.read_text())["stage"])
        result = store.get(stage)
        if result is None or stage.teacher is None:
            continue
        half = round(stage.recipe.epochs / 2)
        before = [e for e in result.history if e["epoch"] <= half and "val/AP" in e]
        if before and result.history[-1]["epoch"] > half:
            group = (stage.model.canonical, stage.recipe.epochs, stage.seed)
            groups[group].append((before[-1]["val/AP"], result.metrics["val/AP"]))
    return list(groups.values())


def judge(name: str, groups: list[list[tuple[float, float]]], *, margin: float) -> dict[str, Any]:
    pairs = [pair for group in groups for pair in permutations(group, 2)]
    goes = [reaches(there + end - before + margin, end) for (before, end), (there, _) in pairs]
    hopeful = [later >= end for (_, end), (_, later) in pairs]
    given_up = goes.count(False)
    wrong = sum(h and not g for g, h in zip(goes, hopeful, strict=True))
    return {
        "store": name,
        "margin": margin,
        "trainings": sum(map(len, groups)),
        "pairs": len(pairs),
        "given up": given_up / max(len(pairs), 1),
        "of these wrongly": wrong / max(given_up, 1),
        "end lower": hopeful.count(False) / max(len(pairs), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", type=Path)
    stores = parser.parse_args().stores
    with tempfile.TemporaryDirectory() as folder:
        named = {store.name: store for store in stores} or {"demo": demo(Path(folder))}
        found = {name: curves(store) for name, store in named.items()}
    rows = [judge(name, groups, margin=m) for name, groups in found.items() for m in (0.0, 0.01, 0.03)]
    show("curves", rows, "parts of the pairs; margins in AP. The score half-way is of the last epoch measured by then")


if __name__ == "__main__":
    main()
