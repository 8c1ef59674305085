"""A study as a RayJob for Kubernetes: one file for `kubectl apply -f -`, with all that the study says of its machines.

The fields are those of KubeRay 1.5 and newer (https://docs.ray.io/en/latest/cluster/kubernetes/references/api.html):
`authOptions` makes a token for the cluster, `labels` and `resources` are those of a group's nodes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from importlib.metadata import version
from math import ceil
from pathlib import Path as File
from typing import Any

import yaml

from orchestrator import parcel
from orchestrator.masking import without_secrets
from orchestrator.resources import Placement
from orchestrator.study import Study
from trainers.address import in_bucket
from trainers.call import Invalid

# Of what MLflow and S3 want to know, such as MLFLOW_TRACKING_URI and AWS_ACCESS_KEY_ID; a cluster may be without.
SECRET = "tapath"
FOLDER = "/home/ray/study"
KEY = "study.yaml"  # in the ConfigMap, which does not take every name of a file
CPU, GPU = 8 * 2**30, 16 * 2**30  # bytes of memory of a pod, where a study does not say how much a worker needs
OVERHEAD = (
    1.5  # what of a pod's memory Ray offers to stages is two thirds; it keeps the rest for itself and its objects
)
LARGEST = 900_000  # bytes of a ConfigMap, which etcd takes up to a mebibyte of


def manifest(study: Study, *, image: str, claim: str, words: tuple[str, ...] = ()) -> str:
    """A ConfigMap with the study, and a RayJob that runs it.

    image: has tapath installed; claim: of the volume that becomes the study's store, if that is a folder.
    Raises `Invalid` for what a pod could not find or would lose, as for any job.
    """
    parcel.checked(study)
    _secrets(study)
    if len(study.text.encode()) > LARGEST:
        raise Invalid(f"{study.file} is larger than the {LARGEST:,} bytes that a ConfigMap holds")
    for name, model in study.models.items():
        if model.weights is not None and not model.weights.remote and parcel.relative(model.weights.file):
            message = f"{model.weights.file} does not fit into a ConfigMap: write its whole path in the pods, or a URL"
            raise study.refusal(Invalid(message, ("models", name, "weights", "file")))
    name = named(study.name)
    texts = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {KEY: study.text}}
    parts = [texts, job(study, name, image, claim, words)]
    text: str = yaml.dump_all(parts, Dumper=Plain, sort_keys=False, width=120)
    return text


def _secrets(study: Study) -> None:
    for number, line in enumerate(study.text.splitlines(), 1):
        if (said := without_secrets(line)) != line:
            raise Invalid(
                f"{study.file}:{number}: {said.strip()[:200]}: the password or token in it would be read by all who "
                "may read ConfigMaps; leave it out of the study, and put MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, into the secret `{SECRET}`"
            )


class Plain(yaml.SafeDumper):
    """Writes everything out, and texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Plain.add_representer(str, _text)


def named(name: str) -> str:
    """A study's name as Kubernetes allows it: small letters, digits and -, short enough for KubeRay to add to it."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    full = f"tapath-{plain}".strip("-")
    if plain == name and len(full) <= 40:
        return full
    return f"{full[:31].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def job(study: Study, name: str, image: str, claim: str, words: tuple[str, ...]) -> dict[str, Any]:
    """The RayJob."""
    mounts = [{"name": "study", "mountPath": FOLDER}]
    texts = {"name": name, "items": [{"key": KEY, "path": File(study.file).name}]}
    volumes: list[dict[str, Any]] = [{"name": "study", "configMap": texts}]
    if not in_bucket(study.resources.store):
        mounts.append({"name": "store", "mountPath": study.resources.store})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": claim}})

    def template(kind: str, limits: dict[str, Any]) -> dict[str, Any]:
        container = {
            "name": kind,
            "image": image,
            "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
            "resources": {"limits": limits, "requests": limits},
            "volumeMounts": mounts,
        }
        return {"spec": {"containers": [container], "volumes": volumes}}

    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            # The shell makes way, so that a signal and an exit code are those of the run.
            "entrypoint": f"exec {shlex.join(parcel.command(study, *words, folder=FOLDER))}",
            "runtimeEnvYAML": json.dumps({"env_vars": parcel.ENVIRONMENT}),  # which is YAML
            "backoffLimit": 1,  # a cluster that broke down is made anew once; the run goes on from the store
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                    "template": template("ray-head", {"cpu": 2, "memory": _memory(CPU)}),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": f"workers-{number}",
                        "replicas": count,
                        "minReplicas": count,
                        "maxReplicas": count,
                        "rayStartParams": {},
                        **offered(placement),
                        "template": template("ray-worker", limits(placement)),
                    }
                    for number, (placement, count) in enumerate(groups(study))
                ],
            },
        },
    }


def groups(study: Study) -> list[tuple[Placement, int]]:
    """The kinds of pods, each for one worker, and how many there are of them.

    Models that ask for the same share a kind. There are as many as one stage of any of them has workers, times as many
    stages as may run at once; one, where the study does not say.
    """
    found: dict[str, tuple[Placement, int]] = {}
    for model in study.models.values():
        wanted = model.resources
        alike = wanted.model_copy(update={"workers": 1, "min_workers": None, "stages_at_once": None})
        most = [one for one in (study.resources.stages_at_once, wanted.stages_at_once) if one]
        count = wanted.workers * min(most, default=1)
        key = alike.model_dump_json()
        found[key] = alike, max(count, found.get(key, (alike, 0))[1])
    return list(found.values())


def limits(placement: Placement) -> dict[str, Any]:
    """What a pod for one worker may use."""
    wanted = ceil(placement.memory * OVERHEAD) if placement.memory else GPU if placement.gpus else CPU
    gpus = {"nvidia.com/gpu": ceil(placement.gpus)} if placement.gpus else {}
    return {"cpu": ceil(placement.cpus), "memory": _memory(wanted), **gpus}


def offered(placement: Placement) -> dict[str, Any]:
    """What Ray's node in a pod has beside processors, memory and labels of its own accord."""
    labels = {"labels": dict(placement.labels)} if placement.labels else {}
    custom = {name: str(ceil(amount)) for name, amount in placement.custom.items()}
    # Naming any resource replaces what Ray would find, so all are named.
    found = {"CPU": str(ceil(placement.cpus))} | ({"GPU": str(ceil(placement.gpus))} if placement.gpus else {})
    return labels | ({"resources": found | custom} if custom else {})


def _memory(size: float) -> str:
    return f"{ceil(size / 2**20)}Mi"
