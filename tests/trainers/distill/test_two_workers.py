"""Two real workers that share a batch learn what one worker with the whole batch learns."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from trainers.distill import KD, LD
from trainers.outputs import Outputs, Targets, Truth

SHAPES = ((2, 3), (1, 2))  # 8 locations, of which six on level 0
SPLIT = ((0,), (1, 2))  # the images of each of the two workers
POSITIVES = {  # by image
    "on both, one level on one only": ((0, 6), (1, 2, 4), (5,)),
    "on one worker only": ((), (0, 1), (7,)),
    "nowhere": ((), (), ()),
}


@dataclass(frozen=True)
class Figures:
    num_classes: int = 3
    strides: tuple[int, ...] = (8, 16)
    channels: int = 4
    bins: int = 5
    start: float = 0.0
    anchors: int = 1


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
    generator = torch.Generator().manual_seed(seed)
    levels = [
        [torch.randn(3, c, *s, generator=generator, dtype=torch.float64)[list(images)] for s in SHAPES] for c in (3, 20)
    ]
    return Outputs([], cls=levels[0], box=levels[1])


def no_boxes(images: int) -> Truth:
    """Images with nothing in them."""
    boxes, labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    return Truth([boxes] * images, [labels] * images, [(64, 64)] * images, list(range(images)), [(1.0, 1.0)] * images)


def targets(positives: Sequence[Sequence[int]]) -> Targets:
    row = torch.tensor([8 * n + cell for n, cells in enumerate(positives) for cell in cells], dtype=torch.long)
    empty = torch.zeros(len(row), dtype=torch.long)
    level = (row % 8 >= 6).long()
    valid = torch.ones(8 * len(positives), dtype=torch.bool)
    return Targets(row, level, empty, torch.zeros(len(row), 4), valid, levels=2, truth=no_boxes(len(positives)))


def learn(images: Sequence[int]) -> dict[tuple[str, str], Tensor]:
    """(2,) for each loss and case: the loss, and the gradient of the one weight of a student."""
    found = {}
    for (case, by_image), (name, loss) in itertools.product(POSITIVES.items(), losses().items()):
        weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        raw = maps(1, images)
        student = Outputs([], [weight * level for level in raw.cls], [weight * level for level in raw.box])
        value = loss(student, maps(2, images), targets([by_image[n] for n in images]))
        value.backward()
        assert weight.grad is not None
        found[case, name] = torch.stack([value.detach(), weight.grad])
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = learn(SPLIT[rank])
    for value in found.values():  # as DDP does
        dist.all_reduce(value)
        value /= 2
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Tensor]:
    folder: Path = tmp_path_factory.mktemp("workers")
    mp.spawn(work, args=(str(folder),), nprocs=2)
    return torch.load(folder / "found.pt")


@pytest.fixture(scope="module")
def one() -> dict[tuple[str, str], Tensor]:
    return learn((0, 1, 2))


@pytest.mark.parametrize("name", losses())
@pytest.mark.parametrize("case", POSITIVES)
def test_two_workers_learn_what_one_does(one, two, case, name):
    torch.testing.assert_close(two[case, name], one[case, name])
    assert (one[case, name] != 0).all() == (case != "nowhere")
