"""What is other with a bucket: requests that fail, answers that get lost, large files, and what each look costs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import buckets
from tests.buckets import Server
from tests.trainers.kept import OTHER, STAGE, epoch_of, kept_state, put, same, state, weights, weights_file
from trainers import bucket as module
from trainers import s3
from trainers.address import at
from trainers.call import Invalid
from trainers.glimpse import Glimpse
from trainers.lease import Lease
from trainers.place import write
from trainers.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(server: Server) -> Store:
    return Store(buckets.new())


def refusal(store: Store) -> str:
    """What somebody reads who begins with a store that cannot be used: one line, and nothing of a secret."""
    buckets.anew()
    with pytest.raises(Invalid) as refused:
        store.writable()
    assert refused.value.where == ("resources", "store")
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)
    buckets.anew()
    return str(refused.value)


# What goes by


def every(n: int, what: str | float) -> Callable[[int, dict[str, Any]], str | float | None]:
    return lambda number, environ: what if number % n == 0 else None


@pytest.mark.parametrize(
    "disturb",
    [every(3, "busy"), every(3, "reset"), every(3, "lost"), every(4, 0.3)],
    ids=["busy", "reset", "lost", "slow"],
)
def test_what_is_wrong_with_a_request_now_and_then_is_not_noticed(
    store: Store, server: Server, disturb: Callable[[int, dict[str, Any]], str | float | None]
) -> None:
    server.disturb = disturb
    store.writable()
    lease = Lease(store.place.file(STAGE.key))
    assert lease.take() and not Lease(store.place.file(STAGE.key)).take()
    guarded = Store(store.root, guard=lease.check)
    guarded.save_state(STAGE.key, 1, state(1))
    lease._renew()
    guarded.save_state(STAGE.key, 2, state(2))
    assert epoch_of(kept_state(store, STAGE.key)) == 2
    result = put(guarded, check=store.mark_measured)
    store.drop_state(STAGE.key)
    lease.release()
    assert store.check(STAGE) and same(store.weights(result), weights())
    found = buckets.names(store.root)
    assert found == [f"{STAGE.key}/{name}" for name in ("measured.json", "result.json", "weights.safetensors")]


def test_what_is_read_when_the_connection_breaks_off_is_read_again(store: Store, server: Server) -> None:
    result = put(store)
    gets = iter(["cut", "cut"])
    server.disturb = lambda number, environ: next(gets, None) if environ["REQUEST_METHOD"] == "GET" else None
    assert same(store.weights(result), weights())


def test_an_answer_that_got_lost_does_not_make_us_think_that_another_was_faster(store: Store, server: Server) -> None:
    puts = iter(["lost", "lost"])
    server.disturb = lambda number, environ: next(puts, None) if environ["REQUEST_METHOD"] == "PUT" else None
    assert store.place.create("a/b", "ours") and not store.place.create("a/b", "theirs")
    server.disturb = lambda number, environ: "lost" if environ["REQUEST_METHOD"] == "PUT" and number % 2 else None
    assert store.place.swap("a/b", b"ours", "newer") and not store.place.swap("a/b", b"ours", "again")
    assert store.place.read("a/b") == b"newer"


def test_who_writes_over_what_changed_or_is_gone_does_not(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    place = store.place
    assert not place.swap("a/b", b"old", "new") and place.create("a/b", "old")
    real = type(place).read

    def late(self: Any, name: str) -> bytes:
        content = real(self, name)
        if content == b"old":
            buckets.put(str(place.file(name)), b"another's")
        return content

    with monkeypatch.context() as patch:
        patch.setattr(module.Bucket, "read", late)
        assert not place.swap("a/b", b"old", "new")
    assert place.read("a/b") == b"another's"


# Large files


def test_a_large_file_goes_in_parts_and_is_there_with_the_last_request(
    store: Store, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 5 << 20)  # the least that S3 takes
    content = os.urandom((11 << 20) + 7)

    def send(guard: Callable[[], object] = bool) -> None:
        with store.place.draft("a/large") as draft:
            draft.write_bytes(content)
            store.place.settle(draft, "a/large", guard=guard)

    def lost() -> None:
        assert len([method for method, _ in server.requests if method == "PUT"]) == 3, "all parts are there"
        raise RuntimeError("another has it")

    store.writable()
    server.requests.clear()
    with pytest.raises(RuntimeError, match="another has it"):
        send(lost)
    assert buckets.names(store.root) == []
    bucket = store.root.split("/")[2]
    assert "Uploads" not in buckets.client().list_multipart_uploads(Bucket=bucket), "nothing of it is left to be paid"
    send()
    with store.place.copy("a/large") as file:
        assert file.read_bytes() == content
    assert not file.exists()


def test_a_copy_that_lasts_is_made_once_and_gone_with_the_process(store: Store, server: Server) -> None:
    write(store.place, "a/b.weights", "content")
    program = f"""
from trainers.address import at
place = at({store.root!r})
first = place.lasting_copy("a/b.weights")
assert place.lasting_copy("a/b.weights") == first and first.read_bytes() == b"content"
print(first)
"""
    server.requests.clear()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert not Path(ran.stdout.strip()).exists()
    assert [path.endswith("b.weights") for method, path in server.requests if method == "GET"].count(True) == 1


# What each look costs


def test_weights_that_were_read_back_are_not_read_again_until_they_are_others(store: Store, server: Server) -> None:
    result = put(store)
    store.mark_measured(result)

    def reads() -> int:
        return len([1 for method, path in server.requests if method == "GET" and path.endswith(".safetensors")])

    before = reads()
    assert store.check(STAGE) and reads() == before
    content = buckets.read(str(weights_file(store, STAGE.key)))
    buckets.put(str(weights_file(store, STAGE.key)), content[:-1] + bytes([content[-1] ^ 1]))
    assert not store.check(STAGE) and reads() > before
    assert f"{STAGE.key}/weights.safetensors.corrupt" in buckets.names(store.root)


def test_weights_that_were_moved_are_read_once_where_their_version_is_another(store: Store, server: Server) -> None:
    result = put(store)
    store.mark_measured(result)
    note = f"{store.root}/{STAGE.key}/measured.json"
    buckets.put(note, buckets.read(note).replace(b'"version":"', b'"version":"another'))
    for reads in (1, 0):
        server.requests.clear()
        assert store.check(STAGE)
        assert len([1 for method, path in server.requests if method == "GET" and path.endswith("tensors")]) == reads


def test_of_a_thousand_stages_a_listing_tells_which_are_there(store: Store, server: Server) -> None:
    put(store)
    put(store, OTHER)
    store.writable()
    server.requests.clear()
    with store.glimpse():
        assert isinstance(store.place, Glimpse)
        for _ in range(500):
            assert store.get(STAGE) is not None and store.get(OTHER) is not None
            assert store.begun(STAGE.key) == 0 and not store.paused(STAGE.key)
            store.drop_state(STAGE.key)
    assert len(server.requests) <= 4, "one listing, and each result once"
    assert not isinstance(store.place, Glimpse)


def test_a_glimpse_shows_what_was_there_and_what_was_done_through_it(store: Store) -> None:
    result = put(store)
    with store.glimpse():
        assert store.get(STAGE) == result and store.get(OTHER) is None
        other = Store(store.root)
        put(other, OTHER)
        other.save_state(STAGE.key, 1, state(1))
        assert store.get(OTHER) is None and store.begun(STAGE.key) == 0, "it is of one moment"
        store.mark_measured(result)
        assert store.measured(result)
        store.save_state(OTHER.key, 3, state(3))
        assert store.begun(OTHER.key) == 3 and epoch_of(kept_state(store, OTHER.key)) == 3
        store.drop_state(OTHER.key)
        assert store.begun(OTHER.key) == 0
        store.place.set_aside(f"{STAGE.key}/weights.safetensors")
        assert store.get(STAGE) is None and store.spoilt(STAGE.key) is not None
    assert store.get(OTHER) is not None and store.begun(STAGE.key) == 1


def test_more_files_than_a_server_tells_at_once_are_listed_page_by_page(store: Store, server: Server) -> None:
    def three(number: int, environ: dict[str, Any]) -> None:
        if "list-type=2" in environ["QUERY_STRING"]:
            environ["QUERY_STRING"] += "&max-keys=3"

    for i in range(10):
        buckets.put(f"{store.root}/{i:04d}/state-000001-0.pt", b"")
    server.disturb = three
    assert len(store.place.find("*/state-*.pt")) == 10
    assert list(store.place.find("*/*-000001-*"))[-1] == "0009/state-000001-0.pt"
    assert len([path for method, path in server.requests if path.count("/") == 1]) > 4


# What is refused when a run starts


def test_a_store_that_can_be_used_is_left_as_it_was(store: Store) -> None:
    store.writable()
    assert buckets.names(store.root) == []


def test_a_bucket_that_is_not_there_is_refused(server: Server) -> None:
    assert refusal(Store("s3://nowhere-at-all/store")) == (
        "the store s3://nowhere-at-all cannot be used: there is no such bucket; make it, or mend its name"
    )


def test_a_server_that_is_busy_when_somebody_begins_is_waited_for(store: Store, server: Server) -> None:
    server.disturb = lambda number, environ: "busy" if number <= s3.FIRST_ATTEMPTS else None
    server.requests.clear()
    buckets.anew()
    store.writable()
    assert len(server.requests) > s3.FIRST_ATTEMPTS


def test_a_worker_whose_first_request_meets_a_server_that_is_away_is_as_patient_as_later(
    store: Store, server: Server
) -> None:
    """It never asks whether the address is right: somebody has, or there would be no worker."""
    server.disturb = lambda number, environ: "reset" if number <= s3.FIRST_ATTEMPTS + 1 else None
    server.requests.clear()
    buckets.anew()
    assert store.get(STAGE) is None and len(server.requests) > s3.FIRST_ATTEMPTS


def test_wrong_credentials_are_refused(store: Store, server: Server) -> None:
    server.disturb = lambda number, environ: "refused"
    assert "the server says InvalidAccessKeyId: see that AWS_ACCESS_KEY_ID and " in refusal(store)


def test_no_credentials_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "there are no credentials for it (NoCredentialsError); set AWS_ACCESS_KEY_ID" in refusal(store)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://127.0.0.1:1", r"http://127.0.0.1:1 does not answer (EndpointConnectionError); is it up, and"),
        ("http://user:secret@127.0.0.1:1", "http://127.0.0.1:1 does not answer"),
        ("nothing like an address", "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is no address; write one as in http://"),
    ],
)
def test_an_endpoint_where_nobody_answers_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, endpoint: str, message: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert message in refusal(store)


@pytest.mark.parametrize("header", ["HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"])
def test_a_server_that_ignores_conditions_is_refused(store: Store, server: Server, header: str) -> None:
    server.disturb = lambda number, environ: environ.pop(header, None) and None
    assert "cannot be shared safely: its server ignores If-None-Match or If-Match on PUT" in refusal(store)
    assert buckets.names(store.root) == [], "nothing is left behind"


def test_a_server_that_does_not_know_conditions_is_refused(store: Store, server: Server) -> None:
    server.disturb = lambda number, environ: "unknown" if "HTTP_IF_NONE_MATCH" in environ else None
    assert "ignores If-None-Match or If-Match on PUT" in refusal(store)


def test_without_boto3_it_is_said_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert refusal(store) == "a store on s3:// needs boto3: pip install 'tapath[s3]'"


def test_a_machine_without_boto3_has_all_but_buckets(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["boto3"] = sys.modules["botocore"] = None
from trainers.address import at
from trainers.place import write
write(at(sys.argv[1]), "a/b", "content")
assert at(sys.argv[1]).read("a/b") == b"content"
import trainers.lease
assert not [name for name in sys.modules if name.split(".")[0] == "torch"], "and nobody waits for torch"
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=True)


def test_an_error_that_stays_says_what_happened_and_where(store: Store, server: Server, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    buckets.anew()
    store.writable()
    server.disturb = lambda number, environ: "busy"
    with pytest.raises(OSError, match="the server says SlowDown") as error:
        store.get(STAGE)
    assert error.value.filename == f"{store.root}/{STAGE.key}/result.json"
    server.disturb = lambda number, environ: None
    buckets.anew()
    assert at(store.root).look("a/b") is None and s3.ATTEMPTS > s3.FIRST_ATTEMPTS
