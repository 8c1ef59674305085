"""Whether this machine can compile networks."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec


def uncompiled(kind: str) -> str:
    """Why networks cannot be compiled here for a device of this kind; empty if they can."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["clang++" if sys.platform == "darwin" else "g++"]
    if kind == "cuda":
        names = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang", "cc"]
        if find_spec("triton") is None:
            return "compile needs triton, and this machine does not have it: install it, or write compile: false"
    if any(shutil.which(name) for name in names):
        return ""
    listed = " or ".join(names)
    return f"compile needs a compiler, and this machine has no {listed}: install one, or write compile: false"
