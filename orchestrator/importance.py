"""How much of the differences between settings each knob accounts for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from orchestrator.samplers import distribution, place
from orchestrator.spaces import Space

FEWEST = 4  # trials from which something can be said


def importance(knobs: Mapping[str, Space], trials: list[tuple[Mapping[str, Any], float]]) -> dict[str, float]:
    """Shares that add up to 1, largest first, from the values and scores of trials that ended; empty if too few did.

    Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014, functional ANOVA, as
    optuna has it. A knob that not every trial has, such as one of a loss that is not always there, is left out.
    """
    shared = [name for name in knobs if all(name in values for values, _ in trials)]
    varied = [name for name in shared if len({str(values[name]) for values, _ in trials}) > 1]
    if len(trials) < FEWEST or not varied or len({score for _, score in trials}) == 1:
        return {}
    if len(varied) == 1:
        return {varied[0]: 1.0}  # without seconds of work, for each of perhaps thousands of edges
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    ranges = {name: distribution(knobs[name]) for name in varied}
    for values, score in trials:
        params = {name: place(knobs[name], values[name]) for name in varied}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=score))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found
