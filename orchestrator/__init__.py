"""What to train next: studies, lattices, strategies, and their scheduling on Ray.

In a notebook: `from orchestrator import load, run, best`; see `notebook`.
"""

from typing import Any

__all__ = ["Result", "best", "load", "run"]


def __getattr__(name: str) -> Any:
    """What notebooks use comes when it is asked for: it brings torch, MLflow and Ray."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator import notebook

    return getattr(notebook, name)
