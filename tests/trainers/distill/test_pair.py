"""Only levels that fit are compared."""

import pytest

from tests.trainers.distill.figures import Figures
from trainers.call import Invalid
from trainers.distill.pair import EVERY, shared_levels


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
