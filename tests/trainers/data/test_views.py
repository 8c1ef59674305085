"""What is made of an image stays within the recipe's limits, whatever chance says."""

from hypothesis import given
from hypothesis import strategies as st

from trainers.augment import Crop, Length, OneOf, Resize, drawn, lengths
from trainers.data.views import Chance, Look, canvas

ALMOST_ONE = 1 - 2**-53  # the largest number that numpy draws

sides = st.integers(1, 1000)
sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
chances = st.builds(Chance, *[st.floats(0, ALMOST_ONE)] * len(Chance._fields))


@st.composite
def length(draw: st.DrawFn, low: int = 1, high: int = 1000) -> Length:
    values = draw(st.lists(st.integers(low, high), min_size=1, max_size=4, unique=True))
    if len(values) == 2:
        return (min(values), max(values))
    return values[0] if len(values) == 1 else OneOf(one_of=values)


@st.composite
def looks(draw: st.DrawFn) -> Look:
    resize = Resize(short=draw(length()), long=draw(st.integers(1000, 2000)))
    short = draw(length(10, 1000))
    low = draw(st.integers(1, lengths(short)[0]))
    crop = Crop(short=short, size=(low, draw(st.integers(low + 1, 1500))), chance=draw(st.sampled_from([0.5, 1.0])))
    return Look(resize, draw(st.sampled_from([None, crop])), flip=draw(st.sampled_from([0.0, 0.5, 1.0])))


@given(length(), st.floats(0, ALMOST_ONE))
def test_what_is_drawn_is_one_of_the_lengths(of: Length, chance: float) -> None:
    allowed = of.one_of if isinstance(of, OneOf) else range(lengths(of)[0], lengths(of)[1] + 1)
    assert drawn(of, chance) in allowed


def test_each_length_is_as_likely_as_the_others_and_both_ends_are_drawn() -> None:
    for of, each in (((480, 483), [480, 481, 482, 483]), (OneOf(one_of=[9, 7, 8, 5]), [9, 7, 8, 5]), (6, [6] * 4)):
        assert [drawn(of, chance) for chance in (0, 0.25, 0.5, 0.75)] == each
        assert [drawn(of, chance - 2**-53) for chance in (0.25, 0.5, 0.75, 1)] == each


@given(looks(), sizes, chances)
def test_a_view_stays_within_what_the_recipe_allows(look: Look, size: tuple[int, int], chance: Chance) -> None:
    view = look.at(size, chance)
    assert look.resize is not None
    assert 1 <= min(view.size) <= lengths(look.resize.short)[1] and max(view.size) <= look.resize.long
    assert view.mirrored == (chance.flip < look.flip)
    if look.crop is None or chance.cut >= look.crop.chance:
        assert view.first is None and view.window is None
        return
    assert view.first is not None and view.window is not None
    assert min(view.first) <= lengths(look.crop.short)[1] and max(view.first) <= look.resize.long
    top, left, height, width = view.window
    assert 0 <= top <= top + height <= view.first[0] and 0 <= left <= left + width <= view.first[1]
    for side, of in zip((height, width), view.first, strict=True):
        assert min(of, look.crop.size[0]) <= side <= min(of, look.crop.size[1])


@given(looks(), sizes, chances)
def test_a_view_keeps_the_ratio_of_what_it_shows(look: Look, size: tuple[int, int], chance: Chance) -> None:
    view = look.at(size, chance)
    x, y = view.scale(size)
    shown = view.window[2:] if view.window is not None else size
    exact = view.size[0] / shown[0], view.size[1] / shown[1]
    # Sides are whole pixels: each is at most half a pixel off, or the one pixel that is left.
    short, long = min(view.size), max(view.size)
    ratio = max(shown) / min(shown)
    assert short == 1 or ((long - 0.5) / (short + 0.5) <= ratio + 1e-9 and (long + 0.5) / (short - 0.5) >= ratio - 1e-9)
    if view.first is None:
        assert (y, x) == exact


@given(looks(), sizes, chances)
def test_measuring_draws_nothing_and_is_as_large_as_training_ever_is(
    look: Look, size: tuple[int, int], chance: Chance
) -> None:
    measured = look.measuring.at(size, chance)
    assert measured == look.measuring.at(size, Chance()) and not measured.mirrored and measured.window is None
    if look.crop is None:
        assert all(a >= b for a, b in zip(measured.size, look.at(size, chance).size, strict=True))


def test_the_recipe_of_detr_and_swin_looks_as_its_authors_have_it() -> None:
    scales = OneOf(one_of=range(480, 801, 32))
    crop = Crop(short=OneOf(one_of=[400, 500, 600]), size=(384, 600))
    look = Look(Resize(short=scales, long=1333), crop, flip=0.5)
    assert look.at((480, 640), Chance(flip=0.5, cut=0.5, short=0.999)) == ((800, 1067), False, None, None)
    # Resized to 500 x 667, of which 384 to 500 and 384 to 600 are left; then the short side to 480.
    cut = look.at((480, 640), Chance(flip=0.4, cut=0.4, cut_short=0.4, height=0.999, width=0.999, left=0.999))
    assert cut == ((480, 576), True, (500, 667), (0, 67, 500, 600))
    assert cut.scale((480, 640)) == (667 / 640 * 576 / 600, 500 / 480 * 480 / 500)
    smallest = look.at((480, 640), Chance(cut=0.0, height=0.0, width=0.0, top=0.5))
    assert smallest.first == (400, 533) and smallest.window == (8, 0, 384, 384)


def test_a_canvas_holds_all_images_in_multiples() -> None:
    assert canvas([(480, 640), (500, 333)], 32) == (512, 640)
    assert canvas([(1, 1)], 32) == (32, 32) and canvas([(33, 64)], 16) == (48, 64)
