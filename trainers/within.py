"""The tensors within what a network says, and the same outputs of other tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from trainers.outputs import Outputs

SAID = ("features", "cls", "box", "maps", "own", "towers")  # the fields of `Outputs` that hold tensors


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists and dictionaries, in their order."""
    if isinstance(value, Tensor):
        yield value
    else:
        for one in value.values() if isinstance(value, dict) else value:
            yield from tensors(one)


def said(outputs: Outputs) -> Iterator[Tensor]:
    """All tensors of outputs, each with the images as its first dimension."""
    return tensors([getattr(outputs, name) for name in SAID])


def rebuilt(like: Outputs, by: Iterator[Tensor]) -> Outputs:
    """Outputs like these, of other tensors in the order of `said`."""
    return replace(like, **{name: _nested(getattr(like, name), by) for name in SAID})


def _nested(value: Any, by: Iterator[Tensor]) -> Any:
    """The same lists and dictionaries of other tensors. No inner function, whose cycle would keep them for a while."""
    if isinstance(value, Tensor):
        return next(by)
    if isinstance(value, dict):
        return {key: _nested(one, by) for key, one in value.items()}
    return type(value)(_nested(one, by) for one in value)
