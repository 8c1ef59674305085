"""Sweeping: by hand on a few models, and as invariants on any lattice, strategy and sweep."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from orchestrator.lattice import Lattice, Path
from orchestrator.settings import Setting
from orchestrator.strategies import best_predecessor, exhaustive, greedy, successive_halving
from orchestrator.sweep import sweep
from orchestrator.sweeping import Sweeping
from tests.orchestrator.sweeps import WEIGHT, lattice, weight

EVERY = [exhaustive, best_predecessor, greedy, successive_halving]
THREE = lattice(("big", "mid", "small"))
TWO = lattice(("big", "small"))
ROOT = Path(("big",))
SIX = {WEIGHT: [float(n) for n in range(1, 7)]}


def trial(*models: str, w: tuple[float, ...], until: int | None = None) -> Path:
    return Path(models, settings=tuple(weight(value) for value in w), until=until)


def direct(value: float, until: int | None = None) -> Path:
    """big teaches small with this weight."""
    return trial("big", "small", w=(value,), until=until)


def swept(
    written: dict, ours: Lattice, strategy: Callable = exhaustive
) -> tuple[Callable[[], set[Path]], dict[Path, float]]:
    """Asks what is wanted, and the scores to note for it; the root is trained."""
    scores: dict[Path, float] = {ROOT: 0.9}
    sweeping = Sweeping(strategy, sweep(written), ours)

    def ask() -> set[Path]:
        found = sweeping(ours, scores)
        assert len(found) == len(set(found)), "each once"
        return set(found) - {ROOT}

    return ask, scores


# Where each edge has its own sweep


def test_before_the_root_is_trained_nothing_else_is_wanted():
    sweeping = Sweeping(exhaustive, sweep({WEIGHT: [1.0, 2.0]}), THREE)
    assert list(sweeping(THREE, {})) == [ROOT]


def test_children_learn_from_the_winner_of_the_edge_above():
    ask, scores = swept({WEIGHT: [1.0, 2.0]}, THREE)
    mids = {trial("big", "mid", w=(w,)) for w in (1.0, 2.0)}
    assert ask() == mids | {direct(1.0), direct(2.0)}
    scores[trial("big", "mid", w=(1.0,))] = 0.3
    assert ask() == mids | {direct(1.0), direct(2.0)}, "the other may still win"
    scores[trial("big", "mid", w=(2.0,))] = 0.4
    taught = {trial("big", "mid", "small", w=(2.0, w)) for w in (1.0, 2.0)}
    assert ask() == mids | {direct(1.0), direct(2.0)} | taught


def test_of_equals_the_first_teaches():
    ask, scores = swept({WEIGHT: [2.0, 1.0]}, THREE)
    ask()
    scores[trial("big", "mid", w=(1.0,))] = scores[trial("big", "mid", w=(2.0,))] = 0.5
    assert trial("big", "mid", "small", w=(2.0, 1.0)) in ask()


def test_where_all_settings_of_an_edge_fail_what_it_would_teach_is_not_asked_for_and_others_go_on():
    ask, scores = swept({WEIGHT: [1.0, 2.0]}, THREE)
    scores |= {trial("big", "mid", w=(w,)): -inf for w in (1.0, 2.0)}
    scores[direct(1.0)] = 0.5
    assert {path.models for path in ask()} == {("big", "mid"), ("big", "small")}


def test_where_some_settings_fail_the_best_of_the_others_teaches():
    ask, scores = swept({WEIGHT: [1.0, 2.0, 3.0]}, THREE)
    scores |= {trial("big", "mid", w=(w,)): score for w, score in ((1.0, -inf), (2.0, 0.1), (3.0, 0.2))}
    assert trial("big", "mid", "small", w=(3.0, 1.0)) in ask()


def test_a_strategy_sees_of_each_path_the_score_of_its_winner_once_its_sweep_is_over():
    seen: list[dict] = []

    def spying(lattice, scores):
        seen.append({path: scores[path] for path in (ROOT, *lattice.paths()) if path in scores})
        return lattice.paths()

    ask, scores = swept({WEIGHT: [1.0, 2.0]}, TWO, spying)
    ask()
    scores[direct(1.0)] = 0.7
    ask()
    scores[direct(2.0)] = 0.2
    ask()
    assert seen[-1] == {ROOT: 0.9, Path(("big", "small")): 0.7}
    assert {ROOT: 0.9} in seen and all(Path(("big", "small")) not in one for one in seen[:-1])


def test_a_strategy_is_shown_no_score_of_a_path_before_it_asks_for_it():
    """The edge to mid is decided, as it teaches; but whoever begins with all scores must not know that before."""
    mid, through, seen = Path(("big", "mid")), Path(("big", "mid", "small")), []

    def spying(lattice, scores):
        seen.append(mid in scores)
        return [through, mid] if through in scores else [through]

    ask, scores = swept({WEIGHT: [1.0]}, THREE, spying)
    ask()
    scores[trial("big", "mid", w=(1.0,))] = 0.5
    ask()
    scores[trial("big", "mid", "small", w=(1.0, 1.0))] = 0.5
    assert seen == [False, False] and not ask() - scores.keys()
    assert seen == [False, False, False, True]


def test_a_pause_that_is_wanted_once_a_path_was_swept_is_one_of_its_winner_if_that_trains_so_long():
    def later(lattice, scores):
        whole = Path(("big", "small"))
        yield whole
        yield from (Path(whole.models, until=end) for end in (1, 4) if whole in scores)

    for epochs, paused in (("2", {1, None}), ("5", {1, 4, None})):
        ask, scores = swept({"recipe.epochs": [2, 5]}, TWO, later)
        scores |= {path: float(path.setting == (("recipe.epochs", epochs),)) for path in ask()}
        assert {path.until for path in ask() if path.setting == (("recipe.epochs", epochs),)} == paused
        assert len(ask()) == len(paused) + 1


# Where a path has one setting


def test_one_setting_holds_along_a_whole_path_and_prefixes_are_shared():
    ask, scores = swept({WEIGHT: [1.0, 2.0], "scope": "path"}, THREE)
    through = {trial("big", "mid", "small", w=(w, w)) for w in (1.0, 2.0)}
    assert ask() == through | {direct(1.0), direct(2.0)}, "the trainings of mid come with what they teach"
    assert {path.teacher for path in through} == {trial("big", "mid", w=(w,)) for w in (1.0, 2.0)}
    scores |= dict.fromkeys(through, 0.5)
    assert ask() == through | {direct(1.0), direct(2.0)}


def test_all_paths_draw_the_same_settings_where_a_setting_holds_along_a_path():
    drawn = {WEIGHT: {"uniform": [0, 1]}, "sampler": "random", "samples": 4, "scope": "path"}
    ask, _ = swept(drawn, THREE)
    by_path: dict[tuple[str, ...], set[Setting]] = {}
    for path in ask():
        assert len(set(path.settings)) == 1
        by_path.setdefault(path.models, set()).add(path.setting)
    one, other = by_path.values()
    assert one == other and len(one) == 4


def test_edges_draw_settings_of_their_own_where_each_has_its_own_sweep():
    ask, _ = swept({WEIGHT: {"uniform": [0, 1]}, "sampler": "random", "samples": 4}, THREE)
    found = ask()
    mids, smalls = ({path.setting for path in found if path.models[-1] == name} for name in ("mid", "small"))
    assert len(mids) == len(smalls) == 4 and not mids & smalls


# Halving: once all are as far


def test_of_six_siblings_a_third_goes_on_from_each_rung_once_all_are_there():
    """Six epochs; rungs after 1 and 3."""
    ask, scores = swept({**SIX, "stop": {"halving": {"grace": 1, "factor": 3}}}, TWO)
    first = {direct(float(n), until=1) for n in range(1, 7)}
    assert ask() == first
    reached = {1.0: 0.1, 2.0: 0.6, 3.0: 0.3, 4.0: 0.5, 5.0: 0.4}
    scores |= {direct(w, until=1): score for w, score in reached.items()}
    assert ask() == first, "one is not there yet"
    scores[direct(6.0, until=1)] = 0.2
    second = {direct(2.0, until=3), direct(4.0, until=3)}
    assert ask() == first | second
    scores[direct(2.0, until=3)] = 0.65
    assert ask() == first | second
    scores[direct(4.0, until=3)] = 0.7
    assert ask() == first | second | {direct(4.0)}, "one always goes on"
    scores[direct(4.0)] = 0.2
    assert ask() == first | second | {direct(4.0)}


def test_who_was_given_up_never_teaches_though_it_was_better_then():
    written = {**SIX, "stop": {"halving": {"grace": 1, "factor": 6}}}
    ask, scores = swept(written, THREE)
    scores |= {trial("big", "mid", w=(float(n),), until=1): n / 10 for n in range(1, 7)}
    scores[trial("big", "mid", w=(6.0,))] = 0.01
    assert trial("big", "mid", "small", w=(6.0, 1.0), until=1) in ask()
    assert {path.settings[0] for path in ask() if len(path.models) == 3} == {weight(6.0)}


def test_where_all_that_went_on_fail_the_best_of_those_that_were_given_up_goes_on_in_their_place():
    ask, scores = swept({**SIX, "stop": {"halving": {"grace": 1, "factor": 3}}}, TWO)
    first = {direct(float(n), until=1) for n in range(1, 7)}
    scores |= {direct(float(n), until=1): n / 10 for n in range(1, 7)}
    assert ask() == first | {direct(6.0, until=3), direct(5.0, until=3)}
    scores |= {direct(6.0, until=3): 0.6, direct(5.0, until=3): -inf}
    assert ask() - scores.keys() == {direct(6.0)}, "one of the two goes on, so nobody need go in the other's place"
    scores[direct(6.0)] = -inf
    assert ask() - scores.keys() == {direct(4.0, until=3)}
    scores[direct(4.0, until=3)] = 0.1
    assert ask() - scores.keys() == {direct(4.0)}
    scores[direct(4.0)] = -inf
    assert ask() - scores.keys() == {direct(3.0, until=3)}
    scores[direct(3.0, until=3)] = 0.2
    assert ask() - scores.keys() == {direct(3.0)}
    scores[direct(3.0)] = 0.3
    assert not ask() - scores.keys()


def test_where_all_siblings_fail_their_path_does():
    ask, scores = swept({**SIX, "stop": {"halving": {"grace": 1, "factor": 3}}}, THREE)
    scores |= {trial("big", "mid", w=(float(n),), until=1): -inf for n in range(1, 7)}
    assert not any(len(path.models) == 3 for path in ask())
    assert sum(path.models == ("big", "mid") for path in ask()) == 6


def test_a_training_that_is_shorter_than_the_next_rung_goes_to_its_end():
    written = {"recipe.epochs": [2, 8], "stop": {"halving": {"grace": 1, "factor": 3}}}
    sweeping = Sweeping(exhaustive, sweep(written), TWO)
    scores = {ROOT: 0.9}
    short, long = (Path(("big", "small"), settings=((("recipe.epochs", n),),)) for n in ("2", "8"))
    rung = {Path(short.models, settings=short.settings, until=1), Path(long.models, settings=long.settings, until=1)}
    assert set(sweeping(TWO, scores)) - {ROOT} == rung
    scores |= dict(zip(sorted(rung), (0.5, 0.4), strict=True))
    assert set(sweeping(TWO, scores)) - {ROOT} == rung | {short}


def test_a_sweep_of_one_setting_is_trained_to_its_end():
    ask, scores = swept({WEIGHT: [1.0], "stop": "asha"}, TWO)
    for until in (1, 3, None):
        (new,) = ask() - scores.keys()
        assert new == direct(1.0, until=until)
        scores[new] = 0.5
    assert not ask() - scores.keys()


# ASHA: at once


def test_with_asha_whoever_is_in_the_best_third_of_those_that_are_as_far_goes_on_at_once():
    ask, scores = swept({**SIX, "stop": {"asha": {"grace": 1, "factor": 3}}}, TWO)
    first = {direct(float(n), until=1) for n in range(1, 7)}
    scores |= {direct(1.0, until=1): 0.1, direct(2.0, until=1): 0.3}
    assert ask() == first, "a third of two is nobody"
    scores[direct(3.0, until=1)] = 0.2
    assert ask() == first | {direct(2.0, until=3)}
    scores[direct(2.0, until=3)] = 0.35
    scores |= {direct(4.0, until=1): 0.5, direct(5.0, until=1): 0.4}
    assert ask() == first | {direct(2.0, until=3), direct(4.0, until=3)}, "who has gone on stays"
    scores[direct(6.0, until=1)] = 0.0
    assert ask() == first | {direct(w, until=3) for w in (2.0, 4.0, 5.0)}
    scores |= {direct(4.0, until=3): 0.3, direct(5.0, until=3): 0.2}
    assert ask() - scores.keys() == {direct(2.0)}
