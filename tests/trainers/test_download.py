"""A download is in the cache whole or not at all, and its address may hold secrets."""

from __future__ import annotations

import base64
import errno
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainers import download as module
from trainers.call import Invalid
from trainers.download import cache, download, place, shown

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Handler(BaseHTTPRequestHandler):
    """Answers with the path; `short` ends too early, `broken` in the middle of a chunk, `away` sends elsewhere."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    length = True

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        if "away" in self.path:
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/x.pth")
            self.end_headers()
            return
        self.send_response(200)
        content = self.path.encode()
        if "broken" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            content = b"ff\r\nhalf"
        elif "nolength" not in self.path:
            self.send_header("Content-Length", str(len(content) + 9 * ("short" in self.path)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    Handler.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def kept() -> list[str]:
    return [file.name for file in cache().rglob("*") if file.is_file()]


@pytest.mark.parametrize("path", ["/x.pth", "/nolength.pth", "/my%20model.pth", "/x.pth?token=1"])
def test_what_is_there_is_kept_whole(host: str, path: str) -> None:
    assert download(f"http://{host}{path}").read_text() == path
    assert len(kept()) == 1


def test_spaces_and_letters_of_other_languages_are_sent_as_servers_want_them(host: str) -> None:
    assert download(f"http://{host}/my mödel.pth").read_text() == "/my%20m%C3%B6del.pth"


@pytest.mark.parametrize("name", ["short.pth", "broken.pth"])
def test_what_ended_too_early_is_refused_and_not_kept(host: str, name: str) -> None:
    with pytest.raises(Invalid, match="cannot fetch "):
        download(f"http://{host}/{name}")
    assert kept() == []


def test_every_url_has_a_file_of_its_own_with_a_name_that_any_disk_takes() -> None:
    urls = ["http://x/a/b_c.pth", "http://x/a_b/c.pth", "https://x/a/b_c.pth", "http://x/a/b_c.pth?v=2", "http://x/"]
    assert len({place(url) for url in urls}) == len(urls)
    long = place(f"http://x/{'é/' * 200}{'a' * 300}.pth?{'s' * 300}").name
    assert len(long.encode()) == 16 + 1 + 60 and long.endswith("a.pth") and "s" not in long[17:]
    assert SECRET not in place(f"http://u:{SECRET}@x/y.pth?t={SECRET}").name


def test_a_file_url_is_a_download_too(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_text("content")
    url = f"file://user:{SECRET}@localhost{tmp_path}/x.pth?token={SECRET}"
    assert download(url).read_text() == "content"
    for gone in (f"file://{tmp_path}/gone.pth", f"file://{tmp_path}"):
        with pytest.raises(Invalid, match="cannot fetch file://"):
            download(gone)


def test_many_at_once_do_not_disturb_one_another(host: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(download, [f"http://{host}/x.pth"] * 16))
    assert {file.read_text() for file in files} == {"/x.pth"}
    assert kept() == [files[0].name]


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@127.0.0.1:1/x.pth?t={SECRET}",
        f"http://user:{SECRET}@[x/m.pth",
        f"http://user:{SECRET}@x:port/m.pth?{SECRET}",
        f"http://user:{SECRET}@127.0.0.1:99999/m.pth",
        f"http://user:{SECRET}@a\x01b/m.pth?{SECRET}",
        f"http://user:{SECRET}@{'a' * 70}.invalid/m.pth",
        f"http://user:{SECRET}@/m.pth",
        f"http:///m.pth?{SECRET}",
        f"http://user:{SECRET}@a\u2100b/m.pth",
        f"ftp://user:{SECRET}@x/m.pth",
        f"hf://{SECRET}@x/m.pth",
    ],
)
def test_an_address_that_leads_nowhere_is_the_users_mistake_and_its_secrets_stay_hidden(url: str) -> None:
    with pytest.raises(Invalid) as refusal:
        download(url)
    assert refusal.value.where == ("file",)
    assert SECRET not in str(refusal.value) and "http" in str(refusal.value)


def test_a_user_is_named_to_the_server_and_to_no_other(host: str) -> None:
    download(f"http://me:p%40ss@{host}/away.pth")
    credentials = f"Basic {base64.b64encode(b'me:p@ss').decode()}"
    assert Handler.asked == [("/away.pth", credentials), ("/x.pth", None)]
    assert shown(f"http://me:p%40ss@{host}/x.pth?t=1#f") == f"http://{host}/x.pth"


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(Invalid, match="timed out"):
        download(f"http://127.0.0.1:{mute.getsockname()[1]}/x.pth")


def test_a_long_download_is_announced_once(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LONG", -1)
    monkeypatch.setattr(module, "BLOCK", 2)
    download(f"http://me:{SECRET}@{host}/x.pth")
    assert capsys.readouterr().err == f"fetching http://{host}/x.pth ...\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EDQUOT])
def test_a_cache_that_takes_nothing_is_named_with_what_to_do(
    host: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, "it is full")

    monkeypatch.setattr(module, "write", refuse)
    with pytest.raises(Invalid, match=rf"cannot keep .* in {cache()}: it is full; free space there, or set XDG_CACHE"):
        download(f"http://{host}/x.pth")


def test_a_file_where_the_cache_should_be_is_said_too(host: str) -> None:
    cache().parent.mkdir()
    cache().write_text("a file")
    with pytest.raises(Invalid, match=r"cannot keep .* set XDG_CACHE_HOME"):
        download(f"http://{host}/x.pth")
