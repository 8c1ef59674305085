"""Adapters make a student's pyramid as wide as its teacher's, and only levels that fit are compared."""

import pytest
import torch
from torch import nn

from tests.trainers.distill.figures import Figures
from trainers.call import Invalid
from trainers.distill.adapt import EVERY, Adapters, shared_levels


def test_of_equal_width_they_change_nothing_and_have_nothing_to_learn() -> None:
    adapt = Adapters(4, 4, levels=2)
    features = [torch.rand(1, 4, 2, 2), torch.rand(1, 4, 1, 1)]
    assert all(x is y for x, y in zip(adapt(features), features, strict=True))
    assert not list(adapt.parameters())


def test_of_another_width_each_level_has_a_convolution_of_its_own() -> None:
    adapt = Adapters(4, 6, levels=2)
    features = [torch.rand(1, 4, 2, 2), torch.rand(1, 4, 1, 1)]
    assert [x.shape for x in adapt(features)] == [(1, 6, 2, 2), (1, 6, 1, 1)]
    assert [tuple(p.shape) for p in adapt.parameters()] == [(6, 4, 1, 1), (6,)] * 2
    first, second = adapt
    assert isinstance(first, nn.Conv2d) and not torch.equal(first.weight, second.weight)


def test_levels_are_those_wanted_or_the_first_that_both_have() -> None:
    short, long = Figures(strides=(4, 8)), Figures(strides=(4, 8, 16))
    assert shared_levels(short, long, None, default=EVERY) == (0, 1)
    assert shared_levels(long, long, None, default=1) == (0,)
    assert shared_levels(long, long, (2, 0), default=EVERY) == (0, 2)


@pytest.mark.parametrize("levels", [(), (0, 2), (0, 0)])
def test_levels_that_only_one_of_them_has_or_that_are_named_twice_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match="one or more of 0 to 1, each once") as refusal:
        shared_levels(Figures(strides=(4, 8)), Figures(strides=(4, 8, 16)), levels, default=EVERY)
    assert refusal.value.where == ("levels",)


def test_only_levels_that_are_compared_need_cells_of_one_size() -> None:
    pair = Figures(strides=(4, 8, 16)), Figures(strides=(4, 8, 32))
    assert shared_levels(*pair, (0, 1), default=EVERY) == (0, 1)
    with pytest.raises(Invalid, match=r"strides of the levels.*\(4, 8, 16\).*\(4, 8, 32\)"):
        shared_levels(*pair, None, default=EVERY)
