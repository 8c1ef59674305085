"""Ray Train's trainer without the processes that it would start beside the workers of a stage."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer

# One is for datasets of Ray's own, whether there are any or not: workers load their images themselves. The other gives
# back what workers held of whose controller died, and lives on where no dashboard runs: the trials of a run do that.
LEFT_OUT = ("DatasetsCallback", "PlacementGroupCleanerCallback")


class Lean(TorchTrainer):
    """Each of them takes seconds to load, and workers wait for it."""

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if type(one).__name__ not in LEFT_OUT]
