"""Two real workers that share a batch learn what one worker with the whole batch learns."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.distill.figures import Figures, random_outputs, targets_at
from tests.trainers.two_workers import together
from trainers.distill import KD, LD
from trainers.outputs import Outputs

SPLIT = ((0,), (1, 2))  # the images of each of the two workers
POSITIVES = {  # by image
    "on both, one level on one only": ((0, 6), (1, 2, 4), (5,)),
    "on one worker only": ((), (0, 1), (7,)),
    "nowhere": ((), (), ()),
}


def losses() -> dict[str, nn.Module]:
    pair = Figures(), Figures()
    return {
        **{f"LD {n}": LD(*pair, normaliser=n) for n in ("reference", "per_image", "by_weight")},
        **{
            f"KD {n} {form}": KD(*pair, form=form, normaliser=n)
            for n, form in itertools.product(("per_level", "all"), ("softmax", "binary"))
        },
    }


def maps(seed: int, images: Sequence[int]) -> Outputs:
    every = random_outputs(seed, images=3)
    cls, box = ([level.detach()[list(images)] for level in levels] for levels in (every.cls, every.box))
    return Outputs([], cls, box)


def learn(images: Sequence[int]) -> dict[tuple[str, str], Tensor]:
    """(2,) for each loss and case: the loss, and the gradient of the one weight of a student."""
    found = {}
    for (case, by_image), (name, loss) in itertools.product(POSITIVES.items(), losses().items()):
        weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        raw = maps(1, images)
        student = Outputs([], [weight * level for level in raw.cls], [weight * level for level in raw.box])
        rows = [8 * n + cell for n, image in enumerate(images) for cell in by_image[image]]
        value = loss(student, maps(2, images), targets_at(*rows, images=len(images)))
        value.backward()
        assert weight.grad is not None
        found[case, name] = torch.stack([value.detach(), weight.grad])
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
@pytest.mark.parametrize("case", POSITIVES)
def test_two_workers_learn_what_one_does(one, two, case, name):
    torch.testing.assert_close(two[case, name], one[case, name])
    assert (one[case, name] != 0).all() == (case != "nowhere")
