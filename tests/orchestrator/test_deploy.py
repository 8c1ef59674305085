"""The files of deploy/ are what their readers take, and say the same as the rest of the project."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path as File
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from mlflow.cli import cli as mlflow_commands
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.orchestrator.kubernetes import misfits
from tests.orchestrator.studies import tapath

ROOT = File(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PINNED = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def test_every_file_says_what_it_is_for_and_is_named_in_the_readme() -> None:
    names = sorted(file.name for file in DEPLOY.iterdir())
    readme = (ROOT / "README.md").read_text()
    assert names and [name for name in names if f"deploy/{name}" not in readme] == []
    assert all((DEPLOY / name).read_text().startswith("# ") for name in names)


def test_the_ray_cluster_has_every_field_that_it_must_have_and_no_other() -> None:
    cluster = read("raycluster.yaml")
    assert misfits(cluster) == []
    assert cluster["spec"]["authOptions"] == {"mode": "token"} and cluster["spec"]["rayVersion"] == PINNED["ray"]
    assert cluster["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP", "it is not reached from outside"


def test_the_ray_job_is_what_the_command_in_its_comment_prints() -> None:
    text = (DEPLOY / "rayjob.yaml").read_text()
    (command,) = re.findall(r"^#     tapath (.*)$", text, flags=re.MULTILINE)
    ran = tapath(ROOT, *command.split())
    assert ran.code == 0, ran.err
    assert ran.out == re.sub(r"\A(#.*\n)+", "", text)
    assert [one for part in yaml.safe_load_all(text) for one in misfits(part)] == []


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        (("spec", "authOptions", "mode"), "none", "RayCluster.spec.authOptions.mode is 'none'"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0, "rayStartParams.num-cpus is 0"),
        (("spec", "headGroupSpecs"), {}, "RayCluster.spec has no headGroupSpecs"),
        (("spec", "workerGroupSpecs", 0, "groupName"), None, "workerGroupSpecs[0].groupName is None"),
        (("spec", "workerGroupSpecs", 0, "replicas"), 9, "gpu"),
        (("spec", "headGroupSpec", "template", "spec", "volumes", 0, "name"), "other", "store"),
    ],
)
def test_what_kuberay_would_refuse_is_found(path: tuple[str | int, ...], value: object, wrong: str) -> None:
    cluster = copy.deepcopy(read("raycluster.yaml"))
    place = cluster
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert any(wrong in one for one in misfits(cluster))


def test_the_cluster_of_ray_up_is_valid_by_rays_own_schema() -> None:
    cluster = read("cluster.yaml")
    schema = json.loads((File(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    whole = prepare_config(cluster)
    validate_config(whole)
    assert whole["available_node_types"]["local.cluster.node"]["min_workers"] == len(cluster["provider"]["worker_ips"])
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert sum("RAY_AUTH_MODE=token ray start" in command for command in cluster[name]) == 1
    assert "--dashboard-host=127.0.0.1" in cluster["head_start_ray_commands"][-1]


def test_the_mlflow_server_is_started_with_options_that_it_has_and_only_from_here() -> None:
    services = read("mlflow.yaml")["services"]
    program, command, *words = services["mlflow"]["command"]
    assert (program, command) == ("mlflow", "server")
    options = {name: option for option in mlflow_commands.commands["server"].params for name in option.opts}
    assert set(words[::2]) <= options.keys()
    assert options["--backend-store-uri"].envvar == "MLFLOW_BACKEND_STORE_URI"
    assert f"mlflow=={PINNED['mlflow']}" in services["mlflow"]["build"]["dockerfile_inline"]
    assert "psycopg2-binary" in services["mlflow"]["build"]["dockerfile_inline"]
    # Of SQLAlchemy's drivers the one that is installed: it takes another if none is named.
    assert services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert published == ["127.0.0.1:5000:5000"], "nobody else is let in"


# As far as they are used here: https://github.com/compose-spec/compose-spec/blob/main/05-services.md
SERVICE = {
    "image": str,
    "build": dict,
    "command": list,
    "entrypoint": list,
    "environment": dict,
    "depends_on": (dict, list),
    "healthcheck": dict,
    "ports": list,
    "restart": str,
    "volumes": list,
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def test_the_services_have_fields_that_compose_knows_and_wait_for_what_can_come_true() -> None:
    composed = read("mlflow.yaml")
    assert composed.keys() == {"services", "volumes"}
    services = composed["services"]
    for name, service in services.items():
        assert service.keys() <= SERVICE.keys() and ("image" in service) != ("build" in service), name
        assert all(isinstance(value, SERVICE[field]) for field, value in service.items()), name
        assert all(isinstance(word, str) for word in service.get("command", ())), name
        assert all(isinstance(value, str) for value in service.get("environment", {}).values()), name
        waits = service.get("depends_on", {})
        for other, wait in waits.items() if isinstance(waits, dict) else ():
            assert wait.keys() == {"condition"} and wait["condition"] in CONDITIONS
            assert wait["condition"] != "service_healthy" or "healthcheck" in services[other]
            assert wait["condition"] != "service_completed_successfully" or "restart" not in services[other]


def test_an_open_port_of_ray_is_warned_of_where_one_is_opened() -> None:
    for name in ("cluster.yaml", "raycluster.yaml", "rayjob.yaml"):
        text = (DEPLOY / name).read_text()
        assert "RAY_AUTH_MODE=token" in text or "mode: token" in text
        assert "disabled" not in text and "RAY_AUTH_MODE=disabled" not in text
    comments = [(DEPLOY / name).read_text().partition("\n\n")[0] for name in ("cluster.yaml", "raycluster.yaml")]
    assert all("runs any code on all nodes" in " ".join(text.replace("#", "").split()) for text in comments)


def test_no_password_is_written_down_and_every_service_that_one_waits_for_is_there() -> None:
    text = (DEPLOY / "mlflow.yaml").read_text()
    services, volumes = read("mlflow.yaml")["services"], read("mlflow.yaml")["volumes"]
    secret = re.compile(r"\$\{(POSTGRES_PASSWORD|S3_PASSWORD):\?[^}]+\}")
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if "PASSWORD" in name or "SECRET" in name or "URI" in name:
                assert secret.search(value), name
        assert set(service.get("depends_on", ())) <= services.keys()
        assert all(volume.partition(":")[0] in volumes for volume in service.get("volumes", ()))
    assert secret.sub("", text).count("${") == 0


def test_the_image_has_the_pinned_ray_and_what_is_copied_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{PINNED['ray']}-py311-gpu" in text
    copied = [word for line in re.findall(r"^COPY --\S+ (.*) \S+$", text, flags=re.MULTILINE) for word in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
