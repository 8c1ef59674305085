"""What a worker is told to do."""

from __future__ import annotations

from typing import Literal

from trainers.call import Call, Count, Index, Positive, Spec
from trainers.lease import EXPIRY
from trainers.spec import Stage

# No step takes that long, nor does a machine think of nothing else; NCCL's own default is the same ten minutes.
SILENCE = 600.0


class Order(Spec):
    """A stage, and where to train it.

    Nothing here but the stage changes the weights, if all batch norms are fixed and the student leaves nothing out at
    random. `micro_batch` and `sync_batch_norm` change on which images live norms take their statistics, `micro_batch`
    and `compile` what is drawn, and the number of workers both; `teacher_precision`, `compile` and `channels_last`
    change how sums are rounded.
    """

    stage: Stage
    data: Call  # the data set as it can be found here
    store: str
    loader_workers: Index = 0
    evaluate_every: Count = 1  # epochs, unless the recipe keeps the best
    bad_images: Index = 10
    micro_batch: Count | None = None  # images of its part of a batch that a worker looks at once; None: all
    sync_batch_norm: bool = False  # live batch norms take the statistics of all workers
    teacher_precision: Literal["bf16", "fp32"] | None = None  # on a GPU; None: the recipe's
    compile: bool = False  # the networks of student and guides
    channels_last: bool | None = None  # how they are laid out on a GPU; None: so
    until: Count | None = None  # the epoch after which it pauses; None: never
    stage_data: bool | str = False  # to which folder of its node the data are copied first; true: to a temporary one
    content: str = ""  # what its files say, by the data set; empty: by the stage
    study: str = ""  # for which it is trained, and in which run of it, by names
    run: str = ""
    lease: Positive = EXPIRY  # seconds after which a stage whose process is silent may be trained by another
    silence: Positive = SILENCE  # seconds without a step, or without any sign of life, after which it counts as hung
