"""Run in a process of its own: whether torch and torchvision fit each other, and what they see of GPUs, as JSON."""

from __future__ import annotations

import json

from trainers.pair import seen

if __name__ == "__main__":
    print(json.dumps(seen()))
