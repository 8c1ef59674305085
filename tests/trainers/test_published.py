"""Published weights are fetched once, and only what they were said to be is taken."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainers.call import Invalid
from trainers.download import cache
from trainers.published import Source, fetch
from trainers.store import Damaged, Store

CONTENT = b"weights, say"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = hashlib.sha256(b"something else").hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Website:
    """A folder behind a local web server, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                asked.append(self.path)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, name: str, content: bytes = CONTENT) -> str:
        """-> its address."""
        (self.folder / name).write_bytes(content)
        return f"http://127.0.0.1:{self.server.server_port}/{name}"


@pytest.fixture
def website(tmp_path: Path) -> Iterator[Website]:
    folder = tmp_path / "website"
    folder.mkdir()
    website = Website(folder)
    yield website
    website.server.shutdown()
    website.server.server_close()


def source(file: str | Path, **more: str) -> Source:
    return Source.model_validate({"file": str(file), **more})


def test_a_source_may_be_written_as_one_word() -> None:
    assert Source.model_validate("x.pth") == source("x.pth")


def test_a_local_file_is_taken_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(CONTENT)
    assert fetch(source(file)) == (file, SHA256)
    assert fetch(source(file, sha256=SHA256[:8])) == (file, SHA256)


def test_a_missing_file_is_named_with_the_folder_that_it_was_looked_for_from(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"there is no file .*x.pth .from "):
        fetch(source(tmp_path / "x.pth"))


def test_another_sum_than_the_one_written_is_refused_and_the_local_file_stays(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(CONTENT)
    with pytest.raises(Invalid, match=f"has the SHA-256 {SHA256}, not {OTHER}") as refusal:
        fetch(source(file, sha256=OTHER))
    assert refusal.value.where == ("sha256",)
    assert file.read_bytes() == CONTENT


def test_the_name_of_a_local_file_promises_nothing(tmp_path: Path) -> None:
    file = tmp_path / f"x-{OTHER[:8]}.pth"
    file.write_bytes(CONTENT)
    assert fetch(source(file))[1] == SHA256


def test_a_url_is_downloaded_once(website: Website) -> None:
    url = website.put(f"x-{SHA256[:8]}.pth")
    file, sha256 = fetch(source(url))
    assert (file.read_bytes(), sha256) == (CONTENT, SHA256)
    assert file.is_relative_to(cache())
    assert fetch(source(url)) == (file, sha256)
    assert len(website.asked) == 1


def test_a_download_that_contradicts_its_name_is_refused_and_fetched_anew(website: Website) -> None:
    url = website.put(f"x-{SHA256[:8]}.pth", b"half a fi")
    with pytest.raises(Invalid, match="damaged or another file"):
        fetch(source(url))
    website.put(f"x-{SHA256[:8]}.pth")
    assert fetch(source(url))[1] == SHA256


def test_a_sum_that_is_written_outweighs_the_one_in_the_name(website: Website) -> None:
    url = website.put(f"x-{OTHER[:8]}.pth")
    assert fetch(source(url, sha256=SHA256))[1] == SHA256


def test_two_urls_with_the_same_name_are_two_files(website: Website) -> None:
    (website.folder / "a").mkdir()
    first, second = website.put("x.pth"), website.put("a/x.pth", b"another")
    assert fetch(source(first))[1] != fetch(source(second))[1]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.pth", "https://no.such.host.invalid/x.pth"])
def test_an_address_that_cannot_be_reached_is_the_users_mistake(url: str) -> None:
    with pytest.raises(Invalid, match=r"cannot fetch .*download it where there is a network"):
        fetch(source(url))


def test_nothing_of_a_page_that_is_not_there_is_kept(website: Website) -> None:
    url = f"{website.put('x.pth')}.gone"
    with pytest.raises(Invalid, match="404"):
        fetch(source(url))
    assert not [file for file in cache().rglob("*") if file.is_file()]


def test_other_protocols_are_refused() -> None:
    with pytest.raises(Invalid, match="http, https or file"):
        fetch(source("ftp://example.org/x.pth"))


def test_the_store_keeps_weights_by_their_content(tmp_path: Path) -> None:
    file, store = tmp_path / "x.pth", Store(tmp_path / "store")
    file.write_bytes(CONTENT)
    store.keep(file, SHA256)
    store.keep(file, SHA256)
    file.unlink()
    kept = store.published(SHA256)
    assert (kept.read_bytes(), kept.name) == (CONTENT, f"{SHA256}.weights")


def test_kept_weights_that_were_damaged_are_not_used(tmp_path: Path) -> None:
    file, store = tmp_path / "x.pth", Store(tmp_path / "store")
    file.write_bytes(CONTENT)
    store.keep(file, SHA256)
    store.published(SHA256).write_bytes(CONTENT[:-1])
    with pytest.raises(Damaged, match="run again to fetch them"):
        store.published(SHA256)
    store.keep(file, SHA256)
    assert store.published(SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["yolo-20230101.pth", "x.pth?name=x-deadbeef.pth", "x-20230101123456.pth"])
def test_a_date_in_the_name_and_a_query_promise_no_sum(website: Website, name: str) -> None:
    url = website.put(name.partition("?")[0]) + name[len(name.partition("?")[0]) :]
    assert fetch(source(url))[1] == SHA256


def test_a_query_after_the_name_does_not_hide_the_sum_in_it(website: Website) -> None:
    url = website.put(f"x-{OTHER[:8]}.pth") + "?download=s3cret"
    with pytest.raises(Invalid, match="damaged or another file") as refusal:
        fetch(source(url))
    assert "s3cret" not in str(refusal.value)


# What the store knows


def kept(store: Store, one: Source) -> None:
    """What a run does."""
    file, sha256 = fetch(one, store)
    store.keep(file, sha256, one.place)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_file_that_was_moved_away_is_taken_from_the_store(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(CONTENT)
    kept(store, source(file))
    file.unlink()
    found, sha256 = fetch(source(file), store)
    assert (found, found.read_bytes(), sha256) == (store.published(SHA256), CONTENT, SHA256)
    assert fetch(source(file, sha256=SHA256[:9]), store) == (found, sha256)
    with pytest.raises(Invalid, match="there is no file"):
        fetch(source(file, sha256=OTHER), store)
    with pytest.raises(Invalid, match="there is no file"):
        fetch(source(file))


def test_a_file_that_is_there_outweighs_what_it_was(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(CONTENT)
    kept(store, source(file))
    file.write_bytes(b"something else")
    kept(store, source(file))
    file.unlink()
    assert fetch(source(file), store)[1] == OTHER


def test_the_same_relative_path_in_another_folder_is_another_file(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    Path("x.pth").write_bytes(CONTENT)
    kept(store, source("x.pth"))
    Path("x.pth").unlink()
    assert fetch(source("x.pth"), store)[1] == SHA256
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(Invalid, match="there is no file"):
        fetch(source("x.pth"), store)


def test_a_whole_sum_is_enough_to_find_a_file_in_the_store(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(CONTENT)
    store.keep(file, SHA256)
    assert fetch(source("elsewhere.pth", sha256=SHA256), store) == (store.published(SHA256), SHA256)
    for digits in (SHA256[:63], OTHER):
        with pytest.raises(Invalid, match="there is no file"):
            fetch(source("elsewhere.pth", sha256=digits), store)


def test_without_a_network_a_url_is_what_it_was(website: Website, store: Store) -> None:
    url = website.put("x.pth")
    kept(store, source(url))
    for file in cache().iterdir():
        file.unlink()
    (website.folder / "x.pth").unlink()
    assert fetch(source(url), store) == (store.published(SHA256), SHA256)


def test_a_damaged_copy_in_the_store_is_no_help(tmp_path: Path, store: Store) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(CONTENT)
    kept(store, source(file))
    file.unlink()
    store.published(SHA256).write_bytes(b"damaged")
    with pytest.raises(Invalid, match="there is no file"):
        fetch(source(file), store)
