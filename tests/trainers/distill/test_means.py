"""What losses are divided by is never 0, and where nothing is learnt the loss is an exact zero."""

import torch

from tests.trainers.distill.two_stages import said
from trainers.distill.means import mean_count, mean_weight, nothing, sum_of_list_means, sum_of_means, total_of


def test_weights_may_be_small_and_those_of_nothing_can_be_divided_by() -> None:
    assert mean_weight(torch.tensor([0.25, 0.25])).item() == 0.5
    assert 0 < mean_weight(torch.zeros(0)).item() < 1e-5


def test_means_of_groups_are_summed_and_empty_groups_add_nothing() -> None:
    losses, group = torch.tensor([1.0, 3.0, 7.0]), torch.tensor([0, 0, 2])
    assert sum_of_means(losses, group, groups=4).item() == 2 + 7


def test_groups_may_be_apart_already() -> None:
    groups = [torch.tensor([1.0, 3.0]), torch.zeros(0), torch.tensor([7.0])]
    assert sum_of_list_means(groups).item() == 2 + 7


def test_nothing_is_wide_and_leaves_other_gradients_alone() -> None:
    x = torch.tensor([[float("nan"), 1.0]], dtype=torch.bfloat16, requires_grad=True)
    found = nothing(x)
    found.backward()
    assert found.dtype == torch.float32 and found.item() == 0
    assert x.grad is not None and (x.grad == 0).all()


def test_a_count_of_nothing_can_be_divided_by() -> None:
    like = torch.zeros((), dtype=torch.float64)
    assert mean_count(torch.tensor([0, 1, 7]), like).tolist() == [1, 1, 7]
    assert mean_count(7, like).item() == 7 and mean_count(0, like).item() == 1
    assert mean_count(torch.tensor(3), like).dtype == torch.float64
    assert mean_count(torch.tensor(3), like.bfloat16()).dtype == torch.float32


def test_a_loss_without_parts_is_an_exact_zero_that_reaches_the_student() -> None:
    student = said(0)
    assert nothing(student.features[0]).item() == 0
    total_of([], student).backward()
    assert student.features[0].grad is not None and (student.features[0].grad == 0).all()
    assert total_of([torch.tensor(2.0), torch.tensor(3.0)], student).item() == 5
