"""The run of a study in MLflow: opened with what is kept there of the study itself."""

from __future__ import annotations

import json

from orchestrator import notes, provenance
from orchestrator.prepared import Prepared
from orchestrator.strategies.waves import judges
from orchestrator.study import Study
from orchestrator.tracking import Tracking
from orchestrator.words import arrow


def begun(prepared: Prepared, *, later: bool = False) -> Tracking:
    """The study's run in MLflow, open."""
    study, resources = prepared.study, prepared.study.resources
    again = provenance.command(study, "report", "--relog")
    patience = resources.tracking_patience
    tracking = Tracking(resources.tracking_uri, study.name, later=later, patience=patience, again=again)
    known = {"study": study.name, "metric": prepared.score_name, provenance.TAG: json.dumps(provenance.made(study))}
    tracking.start(facts(study, prepared), known, description=described(prepared), text=study.yaml)
    return tracking


def facts(study: Study, prepared: Prepared) -> dict[str, object]:
    """What MLflow keeps of the study itself."""
    return {
        "data": str(study.data),
        "data.fingerprint": prepared.contents.fingerprint,
        "models": arrow(prepared.lattice.names),
        "search": str(study.search),
        "distill": ", ".join(str(call) for call in study.distill),
        "seeds": list(study.seeds),
        "controls": ", ".join(study.controls or ()),
    }


def described(prepared: Prepared) -> str:
    """What MLflow keeps of the study so that a report can be made from it alone."""
    study = prepared.study
    return notes.description(
        prepared.lattice,
        metric=prepared.score_name,
        search=str(study.search),
        parameters={name: size.parameters for name, size in prepared.sizes.items()},
        sweep=prepared.sweep,
        controls=study.controls or (),
        judging=judges(study.search, study.seeds) or (),
        expected=study.expected,
        source=study.source,
    )
