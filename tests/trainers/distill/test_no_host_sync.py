"""No loss makes a training step wait for the device, but where this file says so and why.

On a GPU the host runs ahead of the device. Whatever it has to know a number for (a branch, a size that depends on
values, as of `nonzero` or of a mask used as an index) makes it wait until everything before has been computed. All that
goes through operators and methods that can be watched on a CPU as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.test_every_loss import FASTER, OFFERED, ON, Pair
from tests.trainers.waits import watched


class Case(NamedTuple):
    """A loss, how often a step of it waits for what, and why that has to be."""

    loss: str
    waits: dict[str, tuple[int, str]]
    args: Mapping[str, Any] = MappingProxyType({})
    on: Any = None  # another detector than the contract's


ROWS = "which cells are read: gathering a few is far cheaper than computing all of them"
SPREAD = "how many of them are on each level: cheaper than a copy of all levels in one piece"
BOXES = "how many boxes belong to each level: cheaper than comparing them with the cells of all"
REGIONS = "which regions there are comes from a suppression"
SAMPLED = "which regions are drawn, of each kind"
LEVELS = "a region is read from the level that fits its size"
BEST = "how many are left when the better suppress the others"

CASES: dict[str, Case] = {
    "CWD": Case("CWD", {}),
    "CrossKD": Case("CrossKD", {}),
    "CrossKD, a teacher without bins": Case("CrossKD", {}, on=("ATSS", {})),
    "CrossKD, a teacher without bins, by IoU": Case("CrossKD", {}, {"overlap": "iou"}, on=("FCOS", {})),
    "CrossKD, a teacher of deltas": Case("CrossKD", {}, on=("RetinaNet", {})),
    "DeFeat": Case("DeFeat", {}),
    "DeFeat of objects alone": Case(
        "DeFeat",
        {"nonzero": (3, ROWS)},
        {"background_weight": 0, "backbone_foreground_weight": 0, "backbone_background_weight": 0},
    ),
    "DeFeat, two stages": Case(
        "DeFeat",
        {
            "propose": (1, REGIONS),
            "sample": (1, SAMPLED),
            "judge": (2, LEVELS),
            "nonzero": (2, "which regions show an object, and which do not"),
        },
        on=FASTER,
    ),
    "FGD": Case("FGD", {}),
    "FGD, images taken for their maps": Case("FGD", {}, {"scale": "image"}),
    "FGFI": Case("FGFI", {"tolist": (1, BOXES), "nonzero": (3, ROWS)}),
    "FGFI, boxes on all levels": Case("FGFI", {"nonzero": (3, ROWS)}, {"assigned": False}),
    "GI": Case(
        "GI",
        {"mask as index": (2, "the padding of an image is no candidate"), "nms": (2, BEST), "tolist": (1, SPREAD)},
    ),
    "Imitation": Case("Imitation", {"nonzero": (1, ROWS), "tolist": (1, SPREAD)}),
    "Imitation everywhere": Case("Imitation", {}, {"region": "all"}),
    "KD": Case("KD", {}),
    "KD in the valuable region": Case("KD", {"valuable": (1, ROWS)}, {"vlr_weight": 1}),
    "KD, two stages": Case("KD", {"propose": (1, REGIONS), "sample": (1, SAMPLED), "judge": (2, LEVELS)}, on=FASTER),
    "LD": Case("LD", {"valuable": (1, ROWS)}),
    "LD in the main region": Case("LD", {}, {"vlr_weight": 0, "normaliser": "by_weight"}),
    "Mimic": Case(
        "Mimic",
        {
            "propose": (1, REGIONS),
            "mask as index": (2, "half of an image's proposals are to show an object"),
            "nonzero": (3, LEVELS),
        },
    ),
    "Mimic of second stages": Case(
        "Mimic",
        {"propose": (1, REGIONS), "mask as index": (2, "as above"), "judge": (2, LEVELS)},
        {"weight": 0, "cls_weight": 1, "box_weight": 1},
    ),
    "PKD": Case("PKD", {}),
    "TADF": Case("TADF", {"tolist": (1, BOXES), "nonzero": (3, ROWS)}),
    "TADF, two stages": Case(
        "TADF",
        {
            "tolist": (1, BOXES),
            "propose": (2, REGIONS),
            "sample": (1, SAMPLED),
            "judge": (2, LEVELS),
            "nonzero": (7, f"{ROWS}; which regions show an object, and where the teacher is better"),
        },
        on=FASTER,
    ),
}
# A loss that is not written above waits for nothing.
CASES |= {name: Case(name, {}) for name in sorted(OFFERED.keys() - {case.loss for case in CASES.values()})}


@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_only_for_what_is_written_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    if case.on is not None:
        monkeypatch.setitem(ON, case.loss, case.on)
    pair = Pair(case.loss, **dict(case.args))
    said = pair.said()
    with watched(pair.student, pair.teacher) as seen:
        pair.value(*said).backward()
    assert dict(seen) == {what: times for what, (times, _) in case.waits.items()}


def test_every_loss_is_looked_at_and_every_wait_has_a_reason() -> None:
    assert set(OFFERED) == {case.loss for case in CASES.values()}
    assert all(times and why for case in CASES.values() for times, why in case.waits.values())


def nms(x: Tensor) -> Any:
    from torchvision.ops import nms

    return nms(torch.stack([x, x, x + 1, x + 1], dim=1), x, 0.5)


PLANTED: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "a number": ("_local_scalar_dense", lambda x: x.sum().item()),
    "a conversion": ("_local_scalar_dense", lambda x: float(x.max())),
    "a branch": ("_local_scalar_dense", lambda x: 1 if x.sum() > 0 else 0),
    "a comparison": ("equal", lambda x: torch.equal(x, x)),
    "places": ("nonzero", lambda x: x.nonzero()),
    "places, by condition alone": ("nonzero", lambda x: torch.where(x > 0)),
    "a mask that is read": ("mask as index", lambda x: x[x > 0]),
    "a mask that is written": ("mask as index", lambda x: x.clone().index_put((x > 0,), torch.zeros(()))),
    "a mask that is assigned to": ("mask as index", lambda x: x.clone().__setitem__(x > 0, torch.ones(2))),
    "a selection": ("masked_select", lambda x: x.masked_select(x > 0)),
    "repetition": ("repeat_interleave", lambda x: x.repeat_interleave(x.long())),
    "sorted values": ("_unique2", lambda x: x.unique()),
    "counts": ("bincount", lambda x: x.long().bincount()),
    "suppression": ("nms", nms),
    "a list": ("tolist", lambda x: x.tolist()),
    "an array": ("numpy", lambda x: x.numpy()),
    "a copy": ("cpu", lambda x: x.cpu()),
    "numbers of the host": ("tensor", lambda x: x + torch.tensor([1.0, 2, 3], device=x.device)),
    "numbers of the host, as others are": ("new_tensor", lambda x: x + x.new_tensor([1.0, 2, 3])),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_wait_is_seen(planted: str) -> None:
    name, work = PLANTED[planted]
    with watched() as seen:
        work(torch.tensor([0.0, 1.0, 2.0]))
    assert seen[name] >= 1


def test_what_a_detector_is_asked_for_is_one_wait_whatever_it_does_itself() -> None:
    detector = nn.Module()
    detector.propose = lambda x: (x.nonzero(), x.sum().item())
    with watched(detector) as seen:
        torch.ones(2).nonzero()
        detector.propose(torch.ones(2))
        detector.propose(torch.ones(2))
    assert dict(seen) == {"nonzero": 1, "propose": 2}


def test_what_needs_no_number_is_not_counted() -> None:
    x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    with watched() as seen:
        rows = x[torch.tensor([0, 2])] + x.index_select(0, torch.tensor([1])) + x.masked_fill(x > 1, 0).sum()
        rows = rows * torch.where(x > 0, x, 1).sum() + x.repeat_interleave(2).topk(2).values
        rows.sum().backward()
    assert not seen
