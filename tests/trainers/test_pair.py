"""Whether torch and torchvision are a pair is known of every device by itself."""

from __future__ import annotations

import pytest
import torch

from trainers import pair


def test_of_equal_gpus_the_one_that_answers_wrongly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "A GPU")
    monkeypatch.setattr(pair, "_kept", lambda device: [0, 1] if device == broken else [0, 2])
    found = pair.seen()
    assert found["gpus"] == 3 and found["right"] is False
    assert found["kept"] == {"cpu": [0, 2], "cuda:0 A GPU": [0, 2], "cuda:1 A GPU": [0, 1], "cuda:2 A GPU": [0, 2]}


def test_a_pair_keeps_the_boxes_that_stand_apart() -> None:
    found = pair.seen()
    assert found["right"] and found["kept"]["cpu"] == [0, 2] and found["torch"] == torch.__version__
