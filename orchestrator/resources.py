"""Where and how a study runs: what makes no difference to what is learned."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field

from trainers.call import Count, Index, NonNegative, Positive, Spec


class Resources(Spec):
    """Where and how a study runs. Nothing here changes what is learned, nor the key of a stage."""

    workers: Count = 1  # of a stage
    cpus: Positive = 1  # of a worker
    gpus: NonNegative = 0  # of a worker
    stages_at_once: Count | None = None  # None: as many as there is room for
    loader_workers: Index = 0  # processes that load data, of a worker
    evaluate_every: Count = 1  # epochs, unless the recipe keeps the best, or trainings may pause
    bad_images: Index = 10  # how many training images a worker of a stage may find unreadable, and replace
    store: Annotated[str, Field(min_length=1)] = "store"
    runs: Annotated[str, Field(min_length=1)] = "runs"
    tracking: Annotated[str, Field(min_length=1)] | None = None  # None: where MLflow's own variable says, or here

    @property
    def tracking_uri(self) -> str:
        """MLflow's address: the study's, else $MLFLOW_TRACKING_URI, else the file that `mlflow ui` opens here."""
        return self.tracking or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
