"""Group norm for any width, and the colours that a backbone expects."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainers.norm import Colours, group_norm


@given(st.integers(1, 2048))
def test_groups_always_divide_the_channels(channels: int) -> None:
    norm = group_norm(channels)
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= 32


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 8), (32, 4), (16, 2), (24, 1), (8, 1), (3, 1)])
def test_a_group_has_about_eight_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_the_mean_colour_becomes_zero_and_nothing_is_saved() -> None:
    colours = Colours()
    image = torch.tensor([0.485, 0.456, 0.406 + 0.225]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    torch.testing.assert_close(colours(image)[0, :, 1, 0], torch.tensor([0.0, 0.0, 1.0]))
    assert not colours.state_dict()
