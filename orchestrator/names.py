"""What a study and its models may be called."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def study_name(name: str) -> str:
    """The name, as it is: a folder, an experiment and a registered model are called so. Raises `ValueError`."""
    if not NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            "write at most 100 letters, digits, - _ and ., starting with a letter, digit or _ and without .."
        )
    return name


def model_name(name: str) -> str:
    """The name, as it is. Raises `ValueError`."""
    if not 0 < len(name) <= 100 or not name.isprintable() or name != name.strip() or set("/>") & set(name):
        raise ValueError("name a model with 1 to 100 visible characters, none of them > or /")
    return name
