"""How many of the machine's cores a run may use: in a container, under SLURM or `taskset` fewer than there are."""

from __future__ import annotations

import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of Linux's control groups, version 2: microseconds of all cores in a period
OLD = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")  # version 1


def cores() -> int:
    """What this process may be scheduled on, and no more than its group may use of it, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, int(_quota() or allowed)))


def _quota() -> float | None:
    """Cores' worth of time that the group of this process has; None where it is not limited, or nobody says."""
    try:
        quota, period = QUOTA.read_text().split() if QUOTA.exists() else [file.read_text() for file in OLD]
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max" stands for no limit
        return None
