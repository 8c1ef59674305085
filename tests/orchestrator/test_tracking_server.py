"""MLflow as a team has it: the server of deploy/, with its runs in PostgreSQL and its models on S3, and a study that
knows nothing but its address; and PostgreSQL without a server. Real ones, all of them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path as File
from typing import Any, NamedTuple

import pytest
import yaml

from tests.faults.servers import Gate, Mlflow, bucket, exposed, mlflow, postgres, s3
from tests.orchestrator import studies
from tests.orchestrator.boards import the_answer
from tests.orchestrator.studies import TAPATH, Underway, tapath, underway, without, write

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PASSWORDS = {"POSTGRES_PASSWORD": "hush-postgres-31415926", "S3_PASSWORD": "hush-s3-27182818"}
KEYS = {"AWS_ACCESS_KEY_ID": "mlflow", "AWS_SECRET_ACCESS_KEY": PASSWORDS["S3_PASSWORD"]}


class Team(NamedTuple):
    """The servers, and a study that has run."""

    database: str  # HOST:PORT/DATABASE
    bucket: str  # address of the S3 API
    server: Mlflow
    gate: Gate  # through which the study reached the server
    folder: File
    command: Underway
    others: set[int]  # processes that the command started
    exposed: set[str]  # addresses, beside this machine's own, at which any of them listened

    @property
    def uri(self) -> str:
        """PostgreSQL's, with the password."""
        return f"postgresql+psycopg2://mlflow:{PASSWORDS['POSTGRES_PASSWORD']}@{self.database}"

    def asked(self, query: str) -> list[Any]:
        import psycopg2

        with psycopg2.connect(self.uri.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def objects(self) -> dict[str, int]:
        """What is in the bucket, with its size."""
        listed = s3(self.bucket, KEYS).list_objects_v2(Bucket="mlflow")
        return {one["Key"]: one["Size"] for one in listed.get("Contents", ())}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The command and the variables are those of deploy/mlflow.yaml, but for where PostgreSQL and S3 are."""
    folder = tmp_path_factory.mktemp("team")
    service = yaml.safe_load((File(__file__).parents[2] / "deploy" / "mlflow.yaml").read_text())["services"]["mlflow"]
    with ExitStack() as stack:
        database = stack.enter_context(postgres("mlflow", PASSWORDS["POSTGRES_PASSWORD"]))
        address = stack.enter_context(bucket("mlflow", KEYS))
        variables = {name: filled(value) for name, value in service["environment"].items()}
        places = {"@postgres/mlflow": f"@{database}", "http://s3:9000": address}
        for name, value in variables.items():
            for there, here in places.items():
                variables[name] = variables[name].replace(there, here) if there in value else variables[name]
        assert variables["MLFLOW_S3_ENDPOINT_URL"] == address and database in variables["MLFLOW_BACKEND_STORE_URI"]
        words = service["command"][service["command"].index("--artifacts-destination") :]
        server = stack.enter_context(mlflow(folder, *words, **variables))
        gate = Gate(server.port)
        stack.callback(gate.close)
        study = folder / "study"
        write(study, without("mid", "low"))
        # The program itself, as its Ray has all the processes that listen somewhere.
        words = ("run", "tiny.yaml", "--set", f"resources.tracking={gate.uri}")
        command = stack.enter_context(underway(study, *words, program=(TAPATH,)))
        open_to_all = set[str]()
        while command.popen.poll() is None:
            open_to_all |= exposed(pid for pid, _ in command.look())
            time.sleep(0.2)
        others = {pid for pid, _ in command.seen} - {command.popen.pid}
        yield Team(database, address, server, gate, study, command, others, open_to_all)


def filled(value: str) -> str:
    """With the passwords that compose would fill in."""
    for name, password in PASSWORDS.items():
        value = value.replace(f"${{{name}:?write it to deploy/.env}}", password)
    return value


def test_a_study_is_tracked_in_postgresql_and_its_best_student_lies_on_s3(team: Team) -> None:
    assert team.command.popen.returncode == 0, team.command.text
    assert dict(team.asked("SELECT status, count(*) FROM runs GROUP BY status")) == {"FINISHED": 4}
    steps = team.asked("SELECT run_uuid, array_agg(step ORDER BY step) FROM metrics WHERE key = 'val/AP' GROUP BY 1")
    assert [found for _, found in steps] == [[1, 2]] * 3
    assert team.asked("SELECT name, version FROM model_versions") == [("tiny", 1)]
    assert team.asked("SELECT alias FROM registered_model_aliases") == [("best",)]
    there = team.objects()
    (weights,) = (name for name in there if name.endswith("weights.safetensors"))
    best = the_answer(studies.report(team.folder))["best"]
    stored = team.folder / "store" / studies.stages(team.folder)[tuple(best["path"])]["key"] / "weights.safetensors"
    assert there[weights] == stored.stat().st_size and any(name.endswith("MLmodel") for name in there)
    assert not (team.folder / "mlartifacts").exists() and not (team.folder / "mlruns").exists()


def test_nobody_but_the_driver_talks_to_mlflow(team: Team) -> None:
    assert team.others and set(team.gate.callers) == {team.command.popen.pid}


def test_a_ray_that_a_study_starts_listens_to_this_machine_alone(team: Team) -> None:
    assert len(team.others) > 3 and team.exposed == set()


def test_what_is_there_is_read_back_by_who_has_nothing_else(team: Team, tmp_path: File) -> None:
    best = max(studies.stages(team.folder).items(), key=lambda one: (one[0][-1] == "wee", one[1]["score"]))
    asked = tapath(tmp_path, "best", "--experiment", "tiny", "--tracking", team.server.uri, "--json")
    assert asked.code == 0, asked.err
    assert json.loads(asked.out)["path"] == " > ".join(best[0])
    wrote = tapath(tmp_path, "report", "--experiment", "tiny", "--tracking", team.server.uri)
    assert wrote.code == 0, wrote.err
    assert the_answer(studies.report(tmp_path)) == the_answer(studies.report(team.folder))


def test_no_password_of_the_server_is_known_to_who_uses_it(team: Team) -> None:
    written = [file for file in team.folder.rglob("*") if file.is_file()]
    assert len(written) > 5
    for password in PASSWORDS.values():
        assert not [file for file in written if password.encode() in file.read_bytes()]


def test_postgresql_itself_is_tracked_in_with_models_where_mlflows_variable_says(team: Team, tmp_path: File) -> None:
    shutil.copytree(team.folder, tmp_path, dirs_exist_ok=True)
    place = {"MLFLOW_S3_ENDPOINT_URL": team.bucket, "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://mlflow/direct"}
    direct = {**KEYS, **place, "MLFLOW_TRACKING_URI": team.uri}
    ran = tapath(tmp_path, "run", "tiny.yaml", "--set", "name=direct", **direct)
    assert ran.code == 0, ran.err
    assert sum(name.startswith("direct/") and name.endswith("weights.safetensors") for name in team.objects()) == 1
    wrong = tapath(tmp_path, "best", "--experiment", "nobody", **direct)
    assert wrong.code == 2 and "nobody" in wrong.err and "direct, tiny" in wrong.err
    other = {**direct, "MLFLOW_TRACKING_URI": team.uri.replace("hush", "wrong-hush")}
    refused = tapath(tmp_path, "run", "tiny.yaml", "--set", "name=direct", **other)
    assert refused.code == 2 and f"postgresql+psycopg2://{team.database}" in refused.err, refused.err
    tables = ("tags", "params", "experiment_tags", "logged_model_tags", "logged_model_params", "model_version_tags")
    kept = json.dumps([team.asked(f"SELECT * FROM {table}") for table in tables])
    written = [file.read_bytes().decode(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    shown = [ran.out, ran.err, wrong.err, refused.err, kept, *written]
    assert not [text for text in shown if "hush" in text]
