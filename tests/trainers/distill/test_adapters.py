"""What adapters say has the teacher's channels, and those of 3x3 say next to nothing at first."""

import torch
from torch import nn

from trainers.distill.adapters import Adapters, adapter


def test_its_weights_are_small_and_cut_off_and_its_bias_is_torchs_own() -> None:
    torch.manual_seed(0)
    made = adapter(64, 32, relu=False)
    weight, bias = made.state_dict()["weight"], made.state_dict()["bias"]
    assert weight.shape == (32, 64, 3, 3)
    assert weight.abs().max() < 2e-4 and 0.8e-4 < weight.std() < 1e-4
    # What passed 2 was divided by it and the rest kept, so there is more near 0 than a normal distribution has.
    assert (weight.abs() < 1e-4).float().mean() > 0.70
    assert bias.abs().max() <= (64 * 9) ** -0.5 and (bias != 0).any()


def test_a_relu_stands_behind_it_where_it_is_wanted() -> None:
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    bare = adapter(3, 8, relu=False)
    torch.manual_seed(0)
    cut = adapter(3, 8, relu=True)
    assert bare(x).shape == (2, 8, 5, 7) and (bare(x) < 0).any()
    torch.testing.assert_close(cut(x), bare(x).relu())


def test_it_can_be_built_without_numbers() -> None:
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in adapter(3, 4, relu=True).parameters())


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
