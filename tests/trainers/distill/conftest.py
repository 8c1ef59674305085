"""The figures, for tests that take them as fixtures."""

from collections.abc import Callable

import pytest
from torch import Tensor

from tests.trainers.distill.figures import Figures, random_outputs, targets_at
from trainers.outputs import Outputs, Targets


@pytest.fixture
def figures() -> type[Figures]:
    return Figures


@pytest.fixture
def outputs() -> Callable[..., Outputs]:
    return random_outputs


@pytest.fixture
def targets() -> Callable[..., Targets]:
    return targets_at


@pytest.fixture
def of_images() -> Callable[[Outputs, list[int]], Outputs]:
    """The outputs of these images, in this order, as new leaves."""

    def pick(levels: list[Tensor], images: list[int]) -> list[Tensor]:
        return [level.detach()[images].requires_grad_() for level in levels]

    return lambda o, images: Outputs(pick(o.features, images), pick(o.cls, images), pick(o.box, images))
