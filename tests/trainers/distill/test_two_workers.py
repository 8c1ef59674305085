"""Two real workers that share a batch learn what one worker with the whole batch learns."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.trainers.distill.figures import Near, random_outputs, targets_at
from tests.trainers.two_workers import together
from trainers.distill import KD, LD
from trainers.outputs import Outputs

SPLIT = ((0,), (1, 2))  # the images of each of the two workers
POSITIVES = {  # by image
    "on both, one level on one only": ((0, 6), (1, 2, 4), (5,)),
    "on one worker only": ((), (0, 1), (7,)),
    "nowhere": ((), (), ()),
}
VALUABLE = {"nowhere": ((), (), ())}  # as the positives; elsewhere:
SOMEWHERE = ((3,), (0, 6, 7), (2, 4))


def losses() -> dict[str, nn.Module]:
    pair = Near(), Near()
    parts = {"main": {"vlr_weight": 0.0}, "valuable": {"weight": 0.0, "vlr_weight": 1.0}}
    return {
        **{
            f"LD {n} {part}": LD(*pair, normaliser=n, **weights)
            for n, (part, weights) in itertools.product(("reference", "per_image", "by_weight"), parts.items())
        },
        **{
            f"KD {n} {form} {part}": KD(*pair, form=form, normaliser=n, **weights)
            for n, form, (part, weights) in itertools.product(
                ("per_level", "all"), ("softmax", "binary"), parts.items()
            )
        },
    }


def maps(seed: int, images: Sequence[int]) -> Outputs:
    every = random_outputs(seed, images=3)
    cls, box = ([level.detach()[list(images)] for level in levels] for levels in (every.cls, every.box))
    return Outputs([], cls, box)


def rows_of(images: Sequence[int], by_image: Sequence[Sequence[int]]) -> list[int]:
    return [8 * n + cell for n, image in enumerate(images) for cell in by_image[image]]


def learn(images: Sequence[int]) -> dict[tuple[str, str], Tensor]:
    """(2,) for each loss and case: the loss, and the gradient of the one weight of a student."""
    found = {}
    for (case, by_image), (name, loss) in itertools.product(POSITIVES.items(), losses().items()):
        near = rows_of(images, VALUABLE.get(case, SOMEWHERE))
        by = Near(rows=tuple(near), counts=tuple(0.1 + row % 8 / 8 for row in near))
        weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        raw = maps(1, images)
        student = Outputs([], [weight * level for level in raw.cls], [weight * level for level in raw.box], by=by)
        value = loss(student, maps(2, images), targets_at(*rows_of(images, by_image), images=len(images)))
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
