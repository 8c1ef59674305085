"""What is secret in addresses, queries and variables is nowhere in what a study writes, says or sends to Ray."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path as File
from typing import NamedTuple

import pytest

from orchestrator.study import load
from tests.faults.servers import Mlflow, mlflow
from tests.orchestrator import studies
from tests.orchestrator.studies import Ran, changed, tapath, without, write
from trainers.call import Invalid

pytestmark = [pytest.mark.ray, pytest.mark.slow]

# Each in the place where its users write it; none of them is a word that could be there by chance.
USER, PASSWORD = "hush-user-1618", "hush-password-2718"
IN_URL, IN_QUERY, SIGNED = "hush-url-3141", "hush-query-1414", "hush-signed-5772"
VARIABLES = {
    "AWS_SECRET_ACCESS_KEY": "hush-aws-6931",
    "MLFLOW_TRACKING_TOKEN_OF_SOMEBODY": "hush-token-0915",
    "RAY_AUTH_TOKEN": "hush-ray-2502907875095892822283902873218",
    "DATABASE_PASSWORD": "hush-variable-1202",
}
SECRETS = (USER, PASSWORD, IN_URL, IN_QUERY, SIGNED, *VARIABLES.values())
SOURCE = f"see https://me:{IN_URL}@host/table?token={IN_QUERY}&X-Amz-Signature={SIGNED} and ${{DATABASE_PASSWORD}}"


class Said(NamedTuple):
    """A study with secrets all around it that has run, and what it wrote."""

    folder: File
    ray: File  # where Ray wrote
    ran: list[Ran]
    server: Mlflow


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, fresh: File) -> Iterator[Said]:
    """Its MLflow wants a name and a password, which a server without names lets pass; its file is what a person wrote
    and is deleted, so that whatever is found was written by us."""
    folder = tmp_path_factory.mktemp("said")
    ray = File(tempfile.mkdtemp(prefix="tapath-", dir="/tmp"))  # short, for the names of its sockets have a limit
    shutil.copy(fresh, folder / "server.db")
    variables = {**VARIABLES, "RAY_TMPDIR": str(ray), "RAY_AUTH_MODE": "token"}
    with mlflow(folder, "--backend-store-uri", f"sqlite:///{folder}/server.db") as server:
        uri = server.uri.replace("://", f"://{USER}:{PASSWORD}@")
        place = f'resources: {{tracking: "{uri}"}}\nsource: "{SOURCE}"\n'
        study = folder / "study"
        write(study, changed(("controls: [alone]\n", f"controls: [alone]\n{place}"), text=without("mid", "low")))
        ran = [
            tapath(study, *words, **variables)
            for words in (
                ("run", "tiny.yaml", "--set", f"resources.tracking={uri}"),  # once more, as Ray sees command lines
                ("report", "tiny.yaml", "--relog"),
                ("best", "tiny.yaml"),
            )
        ]
        (study / "tiny.yaml").unlink()
        yield Said(study, ray, ran, server)
    shutil.rmtree(ray, ignore_errors=True)


def test_a_study_with_secrets_in_all_its_addresses_runs(said: Said) -> None:
    assert [ran.code for ran in said.ran] == [0, 0, 0], [ran.err for ran in said.ran]
    assert len(studies.stored(said.folder)) == 3


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_in_anything_that_was_written_or_said(secret: str, said: Said) -> None:
    """Report, store, MLflow's database and models, Ray's session with all its logs, both streams."""
    places = (said.folder, said.ray, said.folder.parent)
    written = [file for place in places for file in place.rglob("*") if file.is_file() and not file.is_symlink()]
    assert {"report.json", "server.db", "weights.safetensors", "gcs_server.out"} <= {file.name for file in written}
    assert [file for file in written if secret.encode() in file.read_bytes()] == []
    assert [ran for ran in said.ran if secret in ran.out + ran.err] == []


def test_what_is_not_secret_in_them_is_still_told(said: Said) -> None:
    told = studies.report(said.folder)["source"]
    assert told == "see https://host/table?token=***&X-Amz-Signature=*** and ${DATABASE_PASSWORD}"


def test_no_variable_of_the_environment_gets_into_a_study(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_PASSWORD", VARIABLES["DATABASE_PASSWORD"])
    written = ("${DATABASE_PASSWORD}", "$DATABASE_PASSWORD", "{{DATABASE_PASSWORD}}", "%DATABASE_PASSWORD%")
    for text in written:
        store = f'controls: [alone]\nresources: {{store: "{text}/store"}}\n'
        study = load(write(tmp_path, changed(("controls: [alone]\n", store))))
        assert study.resources.store == f"{text}/store"
        with pytest.raises(Invalid) as refused:
            load(write(tmp_path, changed(("lr: 0.008", f'lr: "{text}"'))))
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "url", [f"https://me:{IN_URL}@127.0.0.1:1/x.pth", f"http://127.0.0.1:1/x.pth?token={IN_QUERY}&sig={SIGNED}"]
)
def test_weights_that_cannot_be_had_are_named_without_what_is_secret(
    url: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.prepared import prepare

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    big = ("{TinyResNet: {width: 16}}}", f'{{TinyResNet: {{width: 16}}}}, weights: "{url}"}}')
    study = load(write(tmp_path, changed(big)))
    with pytest.raises(Invalid, match=r"127\.0\.0\.1:1/x\.pth") as refused:
        prepare(study)
    assert "hush" not in str(refused.value)
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "tiny.yaml"]
    assert not [file for file in written if b"hush" in file.read_bytes()] and "hush" not in str(written)
