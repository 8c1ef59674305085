"""A real S3 API in this process: moto's server with one bucket, which can be slow, busy or break off when told to."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from trainers import s3

# What S3 says, by what is wrong.
ERRORS = {
    "busy": ("503 Slow Down", "SlowDown"),
    "refused": ("403 Forbidden", "InvalidAccessKeyId"),
    "unknown": ("501 Not Implemented", "NotImplemented"),
}


class Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Nothing."""


class Server:
    """The server, and what `disturb` says of the n-th request: what happens to it, or how many seconds it takes.

    `requests` are those that came in, as ("PUT", "/bucket/key").
    """

    def __init__(self) -> None:
        self.application = DomainDispatcherApplication(create_backend_app)
        self.requests: list[tuple[str, str]] = []
        self.disturb: Callable[[int, dict[str, Any]], str | float | None] = lambda number, environ: None
        self._one = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        with self._one:
            self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            number = len(self.requests)
        match self.disturb(number, environ):
            case "busy" | "refused" | "unknown" as wrong:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                status, code = ERRORS[wrong]
                start(status, [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()]
            case "reset":
                return broken(environ)
            case "cut":
                return cut(self._answered(environ, start), environ)
            case "lost":  # it is done, and nobody hears of it
                self._answered(environ, lambda *_: None)
                return broken(environ)
            case float(seconds):
                time.sleep(seconds)
        return self._answered(environ, start)

    def _answered(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        # moto looks and then writes; a real server does both at once, and so does this one.
        with self._one:
            return list(self.application(environ, start))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def broken(environ: dict[str, Any]) -> Iterable[bytes]:
    """End the connection without an answer."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


def cut(answer: list[bytes], environ: dict[str, Any]) -> Iterator[bytes]:
    """Half of an answer, and then nothing."""
    content = b"".join(answer)
    yield content[: len(content) // 2]
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(patch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, of which the environment of this process and of those that it starts says all that they need."""
    server = Server()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ENDPOINT_URL_S3", server.address)
    patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    anew()
    try:
        yield server
    finally:
        anew()
        server.close()


def anew() -> None:
    """Have this process read its environment anew."""
    s3.reached.cache_clear()
    s3.client.cache_clear()


def client() -> Any:
    """Of our own, for what a test does behind the store's back."""
    return _client(os.environ["AWS_ENDPOINT_URL_S3"])


@cache
def _client(address: str) -> Any:
    return boto3.client("s3", endpoint_url=address, region_name="us-east-1")


def new(prefix: str = "prefix") -> str:
    """The address of an empty store in a new bucket."""
    bucket = f"bucket-{uuid4().hex[:12]}"
    client().create_bucket(Bucket=bucket)
    return f"s3://{bucket}/{prefix}".rstrip("/")


def named(address: str) -> dict[str, str]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def names(address: str) -> list[str]:
    """Of all objects below an address, without what they have in common."""
    bucket, key = named(address).values()
    start = f"{key}/" if key else ""
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
    return [one["Key"][len(start) :] for page in pages for one in page.get("Contents", ())]


def read(address: str) -> bytes:
    """What an object holds. Raises `KeyError` if there is none."""
    try:
        content: bytes = client().get_object(**named(address))["Body"].read()
    except client().exceptions.NoSuchKey:
        raise KeyError(address) from None
    return content


def put(address: str, content: bytes) -> None:
    """Have an object of this content."""
    client().put_object(**named(address), Body=content)


def remove(address: str) -> None:
    client().delete_object(**named(address))


def calm(server: Server) -> None:
    """Nothing disturbs it any more, and nothing was asked."""
    server.disturb = lambda number, environ: None
    server.requests.clear()
