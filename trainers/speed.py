"""What makes a step faster and nothing else: compiled networks, the layout of maps, a teacher's own precision.

What is learnt is the same within the rounding of other sums, and of bfloat16 where a teacher speaks in it. But what a
student leaves out at random may be drawn in another order when it is compiled.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from trainers import workers
from trainers.call import Invalid
from trainers.compilers import uncompiled
from trainers.order import Order
from trainers.outputs import Network, Outputs
from trainers.task import Look, Task
from trainers.within import rebuilt, said

OFTEN = 4  # batches of one size after which it is worth a graph: compiling takes as long as many steps
GRAPHS = 16  # sizes that get one; each network needs memory and minutes for each
# Dynamo counts the graphs of a class of networks together, those of all stages that a process ever trains, as networks
# that are built alike share theirs. Beyond its limits it would silently compile no more.
LIMIT = 1 << 16
UNRECORDED = (
    "what is compiled is not recorded on the GPU, so steps may wait for the host: torch records only in that thread "
    "of a process that first made ready for it, and this is another"
)


class Compiled:
    """A network that is compiled for each size of batch that comes often; the others it looks at as it is.

    The network itself stays what it was: for its state, its copies and whoever measures it. On a GPU its kernels are
    recorded and replayed as one, or the host would be busier with them than the device. What it says is then good until
    there is a `next_batch`.
    """

    def __init__(self, network: Network, *, backend: str | Callable[..., Any] = "inductor") -> None:
        self.network = network
        self.seen: Counter[tuple[int, ...]] = Counter()
        self.graphs: set[tuple[int, ...]] = set()
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = LIMIT
        self.recorded = backend == "inductor" and replayable(network)
        options: dict[str, Any] | None = {"triton.cudagraphs": True} if self.recorded else None
        self.fast: Look = torch.compile(network.forward, dynamic=False, backend=backend, options=options)

    def __call__(self, images: Tensor) -> Outputs:
        """(B, 3, H, W) -> what the network says."""
        return self.way(images)(images)

    def way(self, images: Tensor) -> Look:
        """How it looks at images of this size, which have come once more."""
        size = tuple(images.shape)
        if size not in self.graphs:
            self.seen[size] += 1
            if self.seen[size] < OFTEN or len(self.graphs) == GRAPHS:
                plain: Look = self.network
                return plain
            self.graphs.add(size)
            if self.recorded:
                # The first look by a graph takes memory that is set apart, and meanwhile torch gives back nothing of
                # what other looks have left: it would run out, and the stage go on with fewer images at once for good.
                torch.cuda.empty_cache()
        return self.fast


def replayable(network: nn.Module) -> bool:
    """Whether what a network computes can be recorded: on a GPU, by the thread in which torch began to do so."""
    if next(network.parameters()).device.type != "cuda":
        return False
    from torch._inductor import cudagraph_trees  # seconds to import

    return hasattr(cudagraph_trees.local, "tree_manager_containers")


def next_batch(device: torch.device, forget: Callable[[], None] = lambda: None) -> None:
    """Whatever was said of the batch before, nobody needs any more: memory of what is recorded is used again.

    torch guesses else, and takes a sibling's turn for a batch of its own. It tells no batches apart that are different
    stages': `forget` has everybody let go of what is kept of what was said.
    """
    if device.type == "cuda" and "torch._inductor.cudagraph_trees" in sys.modules:
        forget()
        torch.compiler.cudagraph_mark_step_begin()


class Guide:
    """A guide as a lesson asks it: in a precision of its own, if it has one, whatever the student's is.

    `whole`: what it says is handed on in float32, for a student that computes in nothing else.
    """

    def __init__(self, look: Look, precision: Callable[[], AbstractContextManager[Any]], *, whole: bool) -> None:
        self.look, self.precision, self.whole = look, precision, whole

    def __call__(self, images: Tensor) -> Outputs:
        """(B, 3, H, W) -> what the guide says."""
        with self.precision():
            outputs = self.look(images)
        if not self.whole:
            return outputs
        return rebuilt(outputs, (x.float() if x.is_floating_point() else x for x in said(outputs)))


def guide(network: Network, order: Order, *, device: torch.device) -> Look:
    """A guide's network as an order has it asked."""
    look: Look = Compiled(network) if order.compile else network
    own = order.teacher_precision
    if own is None or device.type != "cuda":  # on a CPU there is one precision
        return look
    return Guide(look, _precision(own, device), whole=order.stage.recipe.precision == "fp32")


def _precision(own: str, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16, enabled=own == "bf16")


def hasten(task: Task, order: Order, say: Callable[[str], None], *, device: torch.device) -> None:
    """Have a task's student be compiled if an order says so; `say` is told if that brings less than it could, for the
    guides, too."""
    if not order.compile:
        return
    fast = task.fast = Compiled(task.student)
    if device.type == "cuda" and not fast.recorded and workers.rank() == 0:
        say(UNRECORDED)


def laid_out(network: nn.Module, order: Order, *, device: torch.device) -> None:
    """Lay a network's weights out as its maps are to be, in place: channels last on a GPU, unless the order says no.

    Before its optimizer is made, whose kernels take both to be laid out alike. On a CPU weights stay as they are.
    """
    wanted = device.type == "cuda" if order.channels_last is None else order.channels_last
    if wanted and device.type != "cpu":
        channels_last(network)


def channels_last(network: nn.Module) -> None:
    """Lay a network's weights out so, in place."""
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def check(order: Order, *, device: torch.device) -> None:
    """Raise `Invalid` if an order wants what this machine cannot do."""
    if order.compile and (missing := uncompiled(device.type)):
        raise Invalid(missing, ("resources", "compile"))
