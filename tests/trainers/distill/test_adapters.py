"""Fresh adapters say next to nothing, and what they say has the teacher's channels."""

import torch

from trainers.distill.adapters import adapter


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
