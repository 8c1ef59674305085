"""How to train: stages, detectors, distillation losses, data and metrics. Knows nothing of the search."""
