"""A study whose data each node copies to its own disk, as a user types it."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from tests.orchestrator import studies
from tests.orchestrator.studies import changed, underway, without, write
from trainers import data
from trainers.call import Call
from trainers.data import digits

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_it_learns_the_same_though_the_shared_images_are_gone_after_the_first_stage(
    finished: File, tmp_path: File
) -> None:
    shared, scratch = tmp_path / "shared", tmp_path / "scratch"
    digits.write(Call(name="Digits", args={"classes": 3, "train": 32, "val": 16}).complete(data).of(data), shared)
    text = changed(
        ("{Digits: {classes: 3, train: 32, val: 16}}", f"{{COCO: {{root: {shared}}}}}"), text=without("mid", "low")
    )
    write(tmp_path, text + f"resources: {{stage_data: {scratch}, stages_at_once: 1}}\n")
    with underway(tmp_path, "run", "tiny.yaml") as command:
        command.until(lambda: studies.stored(tmp_path))
        shared.rename(tmp_path / "gone")
        assert command.end() == 0, command.text
    ours, theirs = studies.stored(tmp_path), studies.stored(finished)
    assert len(ours) == 3 and ours == {key: theirs[key] for key in ours}
    assert len(list(scratch.glob("COCO-*/files/*/*/*/*.png"))) == 48
    assert "are read from" not in command.text
