"""Soft labels: how far a student's softened distributions are from its teacher's.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", NIPS Deep Learning Workshop 2014
https://arxiv.org/abs/1503.02531

Both divergences are multiplied by T^2, so that gradients keep their size when T changes (section 2.1
there), and are the *mean* over the last dimension, as in the released code of LD. Textbooks sum: their KL
is n times ours.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

# Below 1 a temperature sharpens: the soft labels would turn into hard ones.
Temperature = Annotated[float, Field(ge=1, allow_inf_nan=False)]


def soft_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 / n * sum_k q_k (log q_k - log p_k) with q = softmax(teacher / T) and p = softmax(student / T).

    Logits (..., n) twice -> (...), in float32 or wider. The gradient is T (p - q) / n for the student and
    none for the teacher. For large T this is the variance over n of (student - teacher), divided by 2 n. A
    constant added to all n logits of a row changes nothing, so with n = 1 it is always zero.
    """
    log_p = F.log_softmax(full_precision(student) / temperature, dim=-1)
    log_q = F.log_softmax(full_precision(teacher.detach()) / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="none", log_target=True).mean(-1)


def bernoulli_kl(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T^2 / n * sum_k KL(q_k || p_k) of n yes-or-no questions: q = sigmoid(teacher / T), p of the student.

    Logits (..., n) twice -> (...), in float32 or wider. The gradient is T (p - q) / n for the student and
    none for the teacher.
    """
    z, target = full_precision(student) / temperature, full_precision(teacher.detach()) / temperature
    yes = F.kl_div(F.logsigmoid(z), F.logsigmoid(target), reduction="none", log_target=True)
    no = F.kl_div(F.logsigmoid(-z), F.logsigmoid(-target), reduction="none", log_target=True)
    return temperature**2 * (yes + no).mean(-1)


def full_precision(x: Tensor) -> Tensor:
    """float32 for anything narrower: the differences of two near logits drown in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
