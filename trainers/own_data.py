"""Ray Train's trainer for workers that load their images themselves."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer


class OwnData(TorchTrainer):
    """For datasets of Ray's own Ray Train starts a process whenever workers start, be there any or not, and to load it
    takes seconds. Here there are none."""

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if type(one).__name__ != "DatasetsCallback"]
