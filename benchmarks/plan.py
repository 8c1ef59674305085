"""How long `tapath plan` takes for 12 models, all paths: 2,048 stages and the student alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import show


def study(models: int) -> str:
    """A lattice of so many tiny models of falling width."""
    lines = ["data: {Digits: {train: 32, val: 16}}", "models:"]
    for i in range(models):
        backbone = f"{{TinyResNet: {{width: {4 * (models - i)}}}}}"
        lines.append(f"  m{i}: {{detector: {{GFL: {{channels: 16, extra: 0, reg_max: 8}}}}, backbone: {backbone}}}")
    return "\n".join([*lines, "recipe: {epochs: 2}", "distill: [LD]", ""])


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for models in (4, 8, 12):
            file = Path(folder) / f"plan{models}.yaml"
            file.write_text(study(models))
            command = [sys.executable, "-m", "orchestrator", "plan", str(file), "--json"]
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
            rows.append({"models": models, "stages": 2 ** (models - 1) + 1, "seconds": time.perf_counter() - start})
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch, torchvision"], check=True)
        imports = time.perf_counter() - start
    show("plan", rows, f"of which importing torch and torchvision: {imports:.1f} s. Goal at 12 models: under 5 s")


if __name__ == "__main__":
    main()
