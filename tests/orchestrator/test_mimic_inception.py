"""The study of Mimic's own pairs, Inceptions of fewer channels and on half the image, fits together."""

from __future__ import annotations

from pathlib import Path as File

from orchestrator.study import load
from tests.orchestrator.studies import tapath

STUDY = File(__file__).parents[2] / "search_spaces" / "mimic_inception.yaml"


def test_the_study_is_planned(tmp_path: File) -> None:
    planned = tapath(tmp_path, "plan", str(STUDY))
    assert planned.code == 0, planned.err
    assert "2 paths" in planned.out and "5 trainings" in planned.out
    assert all(name in planned.out for name in ("inception", "half_inception", "half_image"))


def test_what_a_backbone_is_made_of_is_written_out_in_full() -> None:
    backbone = load(STUDY).models["half_image"].backbone
    assert backbone.model_dump() == {"Halved": {"backbone": {"Inception": {"divide": 8}}, "depthwise": True}}


def test_another_inner_backbone_is_another_study_and_one_that_does_not_exist_is_none(tmp_path: File) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        STUDY.read_text().replace(
            "{Halved: {backbone: {Inception: {divide: 8}}}}", "{Halved: {backbone: {Inception: {divde: 8}}}}"
        )
    )
    planned = tapath(tmp_path, "plan", file.name)
    assert planned.code != 0
    assert "divde" in planned.err and "did you mean divide?" in planned.err
    line = next(n for n, text in enumerate(file.read_text().splitlines(), start=1) if "divde" in text)
    assert f"line {line}" in planned.err or f":{line}" in planned.err


def test_the_inner_backbone_can_be_set_from_the_command_line(tmp_path: File) -> None:
    place = "models.half_image.backbone.Halved.backbone.Inception.divide"
    planned = tapath(tmp_path, "plan", str(STUDY), "--set", f"{place}=16")
    assert planned.code == 0, planned.err
    refused = tapath(tmp_path, "plan", str(STUDY), "--set", f"{place}=0")
    assert refused.code != 0 and "divide" in refused.err
