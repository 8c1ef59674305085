"""The card of a student says what it came from, how sure its gain is, and all of it within what MLflow takes."""

from __future__ import annotations

from pathlib import Path as File
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.card import CUT, card, fitting
from orchestrator.licences import MMDETECTION, TORCHVISION, UNKNOWN
from orchestrator.masking import LONGEST, public
from orchestrator.study import load
from tests.orchestrator.boards import SIZES, board, row, summary, the_answer
from trainers.build import Size

IMAGENET = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
WHOLE = "https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101.pth"


def made(folder: File, weights: dict[str, str], *, seeds: tuple[int, ...] = (0,)) -> tuple[str, list[str]]:
    """The card of the best path of a finished run, of whose models these began from published weights; that path."""
    models = "".join(
        f"  {name}: {{detector: GFL, backbone: {{ResNet: {{depth: 18}}}}"
        + (f", weights: {weights[name]}" if name in weights else "")
        + "}\n"
        for name in SIZES
    )
    file = folder / "study.yaml"
    file.write_text(f"data: Digits\nmodels:\n{models}distill: [LD]\nseeds: {list(seeds)}\n")
    filled = board(seeds=seeds)
    said = summary(filled, seeds=seeds)
    answer = the_answer(said)
    best = answer["best"]["path"]
    prepared: Any = SimpleNamespace(study=load(file), sizes=dict.fromkeys(SIZES, Size(1000, 2000)))
    return card(prepared, said, answer, row(filled, *best), name="voc-gfl"), best


def test_a_card_says_of_each_model_of_the_path_from_whose_weights_it_began(tmp_path: File) -> None:
    weights = {"r101": f'"{WHOLE}"', "r18": f'{{file: "{IMAGENET}", part: backbone}}'}
    text, path = made(tmp_path, weights)
    assert {"r101", "r18"} <= set(path)
    assert f"- weights that r101 began from, {WHOLE}: {MMDETECTION}\n" in text
    assert f"- weights that r18 began from, {IMAGENET}: {TORCHVISION}\n" in text
    assert text.count("- weights that ") == 2 and "began at random" not in text


def test_of_weights_from_elsewhere_nothing_is_guessed(tmp_path: File) -> None:
    text, _ = made(tmp_path, {"r18": "weights/mine.pth"})
    assert f"- weights that r18 began from, weights/mine.pth: {UNKNOWN}\n" in text


def test_weights_of_a_model_that_is_not_on_the_path_are_none_of_its(tmp_path: File) -> None:
    _, path = made(tmp_path, {})
    (other, *_) = set(SIZES) - set(path)
    text, _ = made(tmp_path, {other: f'"{IMAGENET}"'})
    assert "all of this path began at random" in text and IMAGENET not in text


def test_with_several_seeds_a_gain_has_its_interval_and_with_one_a_warning(tmp_path: File) -> None:
    one, _ = made(tmp_path, {})
    assert "; one seed, so it may be noise" in one and "95%" not in one and "+-" not in one
    three, _ = made(tmp_path, {}, seeds=(0, 1, 2))
    (line,) = [line for line in three.splitlines() if line.startswith("- gain over r18 alone: ")]
    gain, low, high = (float(word) for word in line.replace(", 95%", "").split() if word[0] in "+-" and word[1:])
    assert low < gain < high and "noise" not in three and "- mean over 3 seeds: " in three


def test_a_card_that_is_too_long_keeps_its_sections_and_says_what_was_cut(tmp_path: File) -> None:
    weights = {name: f'"https://download.pytorch.org/{name}{"x" * 1500}.pth"' for name in SIZES}
    text, path = made(tmp_path, weights)
    assert len(text) <= LONGEST and public(text) == text and text.endswith(CUT)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        *("# voc-gfl", "## How good", "## What it takes", "## What it came from", "## Licences", "## How to use it"),
    ]
    cut = [line for line in text.splitlines() if line.endswith("...")]
    assert len(cut) == len(path) and all(line.startswith("- weights that ") for line in cut)
    assert len(text) > 0.9 * LONGEST and "tapath export models:/voc-gfl@best" in text


@pytest.mark.parametrize("length", [LONGEST, LONGEST + 1])
def test_a_card_is_cut_only_if_it_must_be(length: int) -> None:
    text = f"- `{'a' * (length - 4)}`"
    assert len(text) == length
    assert fitting(text) == text if length == LONGEST else fitting(text).split("\n")[0].endswith("a`...")
