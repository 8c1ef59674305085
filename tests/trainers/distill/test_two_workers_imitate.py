"""Two real workers that share a batch imitate features and regions as one worker with the whole batch does."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.distill.two_stages import TwoStage, real, said
from tests.trainers.two_workers import together
from trainers.distill import FGFI, TADF, DeFeat
from trainers.outputs import Outputs

SPLIT = ((0,), (1, 2))  # the images of each of the two workers
CASES = {
    "on both": ([[3.0, 5, 33, 40], [-200.0, -200, 100, 100]], [], [[2.0, 9, 30, 30]]),
    "on one worker only": ([], [[40.0, 40, 60, 56]], [[2.0, 9, 30, 30]]),
    "nowhere": ([], [], []),
}
OFF = {
    "foreground_weight": 0.0,
    "background_weight": 0.0,
    "backbone_foreground_weight": 0.0,
    "backbone_background_weight": 0.0,
}


def losses() -> dict[str, nn.Module]:
    pair = TwoStage(), TwoStage()
    no_regions = {"cls_positive_weight": 0.0, "cls_negative_weight": 0.0}
    torch.manual_seed(0)
    made = {
        "DeFeat": DeFeat(*pair, **no_regions),
        "DeFeat foreground": DeFeat(
            *pair, **{**OFF, **no_regions, "foreground_weight": 4.0, "backbone_foreground_weight": 4.0}
        ),
        "DeFeat background": DeFeat(*pair, **{**OFF, **no_regions, "background_weight": 4.0, "backbone_weight": 1.0}),
        "DeFeat regions": DeFeat(*pair, **OFF),
        "FGFI all": FGFI(*pair),
        "FGFI per_level": FGFI(*pair, normaliser="per_level", assigned=False),
        "TADF": TADF(*pair),
        "TADF features": TADF(*pair, cls_weight=0.0, box_weight=0.0),
    }
    for loss in made.values():
        for parameter in loss.parameters():
            nn.init.normal_(parameter, std=0.3)
    return {name: loss.double() for name, loss in made.items()}


def scaled(outputs: Outputs, weight: Tensor) -> Outputs:
    features, maps = ([weight * x.detach() for x in levels] for levels in (outputs.features, outputs.maps))
    return Outputs(features, maps=maps, own=outputs.own, by=TwoStage())


def learn(images: Sequence[int]) -> dict[tuple[str, str], Tensor]:
    """For each loss and case: the loss, the gradient of the one weight of a student, and those of the adapters."""
    found = {}
    for case, boxes in CASES.items():
        for name, loss in losses().items():
            weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
            value = loss(
                scaled(said(1, images), weight), said(2, images, by=TwoStage(scale=3.0)), real(images, boxes=boxes)
            )
            value.backward()
            assert weight.grad is not None
            grads = [parameter.grad.flatten() for parameter in loss.parameters() if parameter.grad is not None]
            assert len(grads) == len(list(loss.parameters()))
            found[case, name] = torch.cat([value.detach()[None], weight.grad[None], *grads])
    return found


def learn_together(rank: int) -> dict[tuple[str, str], Tensor]:
    return learn(SPLIT[rank])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Tensor]:
    """As DDP makes it of what both learn."""
    left, right = together(learn_together, tmp_path_factory.mktemp("workers"))
    return {key: (left[key] + right[key]) / 2 for key in left}


@pytest.fixture(scope="module")
def one() -> dict[tuple[str, str], Tensor]:
    return learn((0, 1, 2))


@pytest.mark.parametrize("name", losses())
@pytest.mark.parametrize("case", CASES)
def test_two_workers_learn_what_one_does(
    one: dict[tuple[str, str], Tensor], two: dict[tuple[str, str], Tensor], case: str, name: str
) -> None:
    torch.testing.assert_close(two[case, name], one[case, name], rtol=1e-5, atol=1e-8)
    silent = case == "nowhere" and name in ("DeFeat foreground", "FGFI all", "FGFI per_level", "TADF features")
    assert (one[case, name][:2] != 0).all() != silent
