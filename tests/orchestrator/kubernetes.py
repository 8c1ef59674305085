"""The fields of KubeRay's resources, as far as this project writes them, with those that must be there.

After https://docs.ray.io/en/latest/cluster/kubernetes/references/api.html. A dict is an object: its fields with their
types, `!` before those that it must have, `*` for any name. A list is a list of its one entry, a set a choice.
"""

from __future__ import annotations

from typing import Any

TEXTS = {"*": str}
AMOUNTS = {"*": (str, int)}
CONTAINER = {
    "!name": str,
    "!image": str,
    "ports": [{"name": str, "!containerPort": int}],
    "envFrom": [{"secretRef": {"!name": str, "optional": bool}}],
    "resources": {"limits": AMOUNTS, "requests": AMOUNTS},
    "volumeMounts": [{"!name": str, "!mountPath": str}],
}
VOLUME = {
    "!name": str,
    "configMap": {"!name": str, "items": [{"!key": str, "!path": str}]},
    "persistentVolumeClaim": {"!claimName": str},
    "emptyDir": {"medium": str, "sizeLimit": str},
}
TEMPLATE = {"!spec": {"!containers": [CONTAINER], "volumes": [VOLUME]}}
GROUP = {"!template": TEMPLATE, "rayStartParams": TEXTS, "labels": TEXTS, "resources": TEXTS}
CLUSTER = {
    "!headGroupSpec": {**GROUP, "serviceType": {"ClusterIP", "NodePort", "LoadBalancer"}},
    "rayVersion": str,
    "authOptions": {"mode": {"token", "disabled"}},
    "workerGroupSpecs": [{**GROUP, "!groupName": str, "replicas": int, "!minReplicas": int, "!maxReplicas": int}],
}
HEADER = {"!apiVersion": str, "!kind": str, "!metadata": {"!name": str}}
KINDS: dict[tuple[str, str], Any] = {
    ("v1", "ConfigMap"): {**HEADER, "!data": TEXTS},
    ("ray.io/v1", "RayCluster"): {**HEADER, "!spec": CLUSTER},
    ("ray.io/v1", "RayJob"): {
        **HEADER,
        "!spec": {
            "!entrypoint": str,
            "runtimeEnvYAML": str,
            "backoffLimit": int,
            "shutdownAfterJobFinishes": bool,
            "ttlSecondsAfterFinished": int,
            "!rayClusterSpec": CLUSTER,
        },
    },
}


def misfits(resource: dict[str, Any]) -> list[str]:
    """What is wrong with a resource: fields that are missing, that there are not, or that are of another type."""
    return _misfits(resource, KINDS[resource["apiVersion"], resource["kind"]], resource["kind"]) + _unmounted(resource)


def _misfits(value: Any, wanted: Any, where: str) -> list[str]:
    if isinstance(wanted, set):
        return [] if value in wanted else [f"{where} is {value!r}"]
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [wrong for i, one in enumerate(value) for wrong in _misfits(one, wanted[0], f"{where}[{i}]")]
    if not isinstance(wanted, dict):
        fits = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
        return [] if fits else [f"{where} is {value!r}"]
    if not isinstance(value, dict):
        return [f"{where} is no mapping"]
    fields = {name.removeprefix("!"): kind for name, kind in wanted.items()}
    missing = [f"{where}.{n[1:]} is missing" for n in wanted if n.startswith("!") and n[1:] not in value]
    unknown = [f"{where} has no {name}" for name in value if name not in fields and "*" not in fields]
    known = {name: fields.get(name, fields.get("*")) for name in value if name in fields or "*" in fields}
    return [*missing, *unknown, *(w for n, kind in known.items() for w in _misfits(value[n], kind, f"{where}.{n}"))]


def _unmounted(resource: dict[str, Any]) -> list[str]:
    """Groups with more workers than they may have, and mounts of volumes that their pod has not."""
    spec = resource.get("spec", {})
    cluster = spec.get("rayClusterSpec", spec)
    wrong = []
    for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())] if cluster else ():
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        wrong += [m["name"] for c in pod["containers"] for m in c["volumeMounts"] if m["name"] not in volumes]
        if not group.get("minReplicas", 0) <= group.get("replicas", 0) <= group.get("maxReplicas", 0):
            wrong.append(group["groupName"])
    return wrong
