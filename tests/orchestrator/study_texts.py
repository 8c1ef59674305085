"""Study files as text, for the tests of how one is read: a long one, the shortest, and what is made of them."""

from pathlib import Path

import pytest

from orchestrator.study import Study, load
from trainers.call import Invalid
from trainers.spec import Data

TEXT = """\
name: demo
data: {Digits: {classes: 3}}
models:
  big:
    detector: {GFL: {channels: 16, convs: 1}}
    backbone: {TinyResNet: {width: 16}}
  mid: {detector: GFL, backbone: TinyResNet}
  small:
    detector: GFL
    backbone: TinyResNet
    recipe: {epochs: 3}
edges: any
recipe:
  epochs: 2
  lr: 1e-3
distill:
  - LD: {weight: 0.5}
  - KD
search: exhaustive
seeds: [0, 1]
resources: {workers: 2}
"""
SMALLEST = """\
data: Digits
models: {a: {detector: GFL, backbone: TinyResNet}, b: {detector: GFL, backbone: TinyResNet}}
distill: [LD]
"""
DATA = Data(fingerprint="f", classes=("a",))


def read(text: str, *sets: str) -> Study:
    Path("demo.yaml").write_text(text, encoding="utf-8")
    return load("demo.yaml", sets)


def refused(text: str, *sets: str) -> str:
    with pytest.raises(Invalid) as caught:
        read(text, *sets)
    assert caught.value.where == ()  # the message names the key already
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1
    return TEXT.replace(old, new)
