"""A teacher and a student that were trained on other colours each read their own copy of one batch."""

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.stages import CPU, stage
from trainers import build
from trainers.augment import Resize
from trainers.call import Call
from trainers.data import Digits
from trainers.data.batches import Batches
from trainers.loop import Training
from trainers.norm import CAFFE_MEANS, MEAN, STD
from trainers.outputs import Network
from trainers.spec import Model, Recipe
from trainers.task import Task
from trainers.teaching import Teaching


class Seen(nn.Module):
    """Keeps what goes into a backbone's colours and what comes out."""

    def __init__(self, colours: nn.Module) -> None:
        super().__init__()
        self.colours = colours
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.pairs.append((images, self.colours(images)))
        return self.pairs[-1][1]


def network(style: str) -> Network:
    model = Model(
        detector=Call(name="GFL", args={"channels": 8, "convs": 1, "extra": 0, "reg_max": 4}),
        backbone=Call(name="ResNet", args={"depth": 18, "style": style}),
    )
    built = build.network(model, 2)
    built.backbone.colours = Seen(built.backbone.colours)
    return built


def channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


@pytest.mark.parametrize("style", ["caffe", "detectron"])
def test_a_teacher_of_caffes_style_and_a_student_of_torchs_normalise_one_batch_each_for_itself(style: str) -> None:
    torch.manual_seed(0)
    taught = stage({"LD": {"weight": 1}}, teacher=stage())
    student, guide = network("pytorch"), network(style).eval().requires_grad_(False)
    losses = build.losses(taught.distill, student, [guide])
    # 40 x 40 pixels on a canvas of 64 x 64.
    batches = Batches(Digits(classes=2, train=4, val=1).train, batch=2, seed=0, resize=Resize(short=40, long=40))
    training = Training(Task(student, losses.modules), Recipe(epochs=1, warmup=0), batches, device=CPU)
    lessons = Teaching([guide], losses.terms, losses.guides, taught, steps=batches.steps)
    next(training.epochs(lessons))
    original = [images.clone() for images, _ in batches.epoch(0)]
    ours, theirs = student.backbone.colours.pairs, guide.backbone.colours.pairs
    assert len(ours) == len(theirs) == len(original) == 2
    for (mine, normal), (other, caffe), images in zip(ours, theirs, original, strict=True):
        assert mine is other and mine.shape == (2, 3, 64, 64)
        torch.testing.assert_close(normal, (images - channels(MEAN)) / channels(STD))
        torch.testing.assert_close(caffe, images.flip(1) * 255 - channels(CAFFE_MEANS[style]), rtol=0, atol=1e-3)
        # The padding is no colour to either: within the grey level by which the two means differ.
        for network_sees, level in ((normal, 1e-6), (caffe, 1.0)):
            assert network_sees[:, :, 40:].abs().max() <= level and network_sees[:, :, :, 40:].abs().max() <= level
            assert network_sees[:, :, :40, :40].abs().max() > 1


def test_a_batch_is_not_changed_by_who_normalises_it() -> None:
    images = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for style in ("pytorch", "caffe"):
        network(style).backbone.colours(images)
        assert torch.equal(images, before)
