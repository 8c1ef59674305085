"""Two or more real workers on this machine, for what must not depend on how many there are."""

import gc
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def together(learn: Callable[[int], Any], folder: Path, *, world: int = 2) -> list[Any]:
    """What `learn(rank)` returns in each of so many processes, which are one group. It has to be a module's own
    function."""
    mp.spawn(work, args=(learn, str(folder), world), nprocs=world)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def work(rank: int, learn: Callable[[int], Any], folder: str, world: int) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=world, timeout=timedelta(minutes=2))
    torch.save(learn(rank), f"{folder}/{rank}.pt")
    gc.collect()  # what still speaks to the group
    dist.barrier()
    dist.destroy_process_group()
    # Threads of torch that outlive the interpreter abort the process once in thousands of times.
    os._exit(0)
