"""A task adds up what the detector and its distillation losses say."""

import pytest
import torch
from torch import nn

from tests.trainers.trainings import taught, training
from trainers.task import Losses


def test_a_task_sums_its_losses_and_counts_its_positives() -> None:
    losses = Losses({"a": torch.tensor(1.5), "b": torch.tensor(2.0)}, torch.tensor(3))
    assert losses.total.item() == 3.5


def test_two_losses_of_one_name_are_an_error_of_ours() -> None:
    run = training(taught(), {"qfl": nn.Identity()})
    images, truth = next(run.batches.epoch(0))
    with pytest.raises(AssertionError, match="two losses are called qfl"):
        run.task(images, truth, None)
