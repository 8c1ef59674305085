"""A bucket as the place of a store, on whatever speaks S3: AWS, MinIO, Ceph.

Where that is and who we are is said by the environment, as boto3 reads it: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and
so on. A PUT is whole or not at all. Of two that must not both succeed the second finds a condition unmet, which servers
have to know: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from trainers import s3
from trainers.alive import mark
from trainers.atomic import is_left_behind
from trainers.call import Invalid
from trainers.glimpse import Glimpse
from trainers.place import Found, Place, matches
from trainers.scratch import scratch

WHERE = ("resources", "store")
PART = 32 << 20  # bytes that are sent at once, and the most of a file that is in memory
AT_ONCE = 16  # small files that are read at the same time


class Bucket:
    """See `Place`."""

    pause = 2.0  # each look is a request that somebody pays for

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self.bucket, self.prefix = bucket, prefix

    @property
    def root(self) -> str:
        return "/".join(filter(None, ("s3:/", self.bucket, self.prefix)))

    @property
    def address(self) -> str:
        return self.root

    def file(self, name: str) -> str:
        return f"{self.root}/{name}"

    def find(self, pattern: str) -> Mapping[str, Found]:
        start = self._key(re.split(r"[*\[]", pattern)[0])
        found = {}
        with s3.talking(self.root):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            for one in (one for page in pages for one in page.get("Contents", ())):
                name = one["Key"][len(self._key("")) :]
                if matches(name, pattern):
                    found[name] = Found(one["Size"], one["LastModified"].timestamp(), one["ETag"])
        return dict(sorted(found.items()))

    def look(self, name: str) -> Found | None:
        try:
            known = self._ask("head_object", name)
        except FileNotFoundError:
            return None
        return Found(known["ContentLength"], known["LastModified"].timestamp(), known["ETag"])

    def read(self, name: str) -> bytes:
        content = BytesIO()
        self._receive(name, content)
        return content.getvalue()

    def read_all(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        def read(name: str) -> bytes | None:
            with suppress(OSError):
                return self.read(name)
            return None

        waiting = iter(names)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while some := list(islice(waiting, 8 * AT_ONCE)):
                for name, content in zip(some, pool.map(read, some), strict=True):
                    if content is not None:
                        yield name, content

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        with scratch() as folder:
            file = Path(folder) / Path(name).name
            with open(file, "wb") as handle:
                self._receive(name, handle)
            yield file

    def lasting_copy(self, name: str) -> Path:
        known = self.look(name)
        if known is None:
            raise FileNotFoundError(f"there is no {self.file(name)}")
        return _lasting(self, name, known.version)

    @contextmanager
    def draft(self, name: str) -> Iterator[Path]:
        with scratch() as folder:
            yield Path(folder) / Path(name).name

    def settle(self, draft: Path, name: str, *, guard: Callable[[], object] = bool) -> None:
        size = draft.stat().st_size
        with open(draft, "rb") as handle:
            if size > PART:
                self._send_in_parts(handle, name, guard)
            else:
                guard()
                self._ask("put_object", name, Body=handle.read())

    def create(self, name: str, text: str) -> bool:
        return self._put_if(name, text, IfNoneMatch="*")

    def swap(self, name: str, old: bytes, text: str) -> bool:
        try:
            known = self.look(name)
            if known is None or self.read(name) != old:
                return False
            return self._put_if(name, text, IfMatch=known.version)
        except FileNotFoundError:
            return False

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._ask("delete_object", name)

    def tidy(self, folder: str) -> None:
        """An object is there whole or not at all, so only trials of the bucket are left behind. Parts of large objects
        are for its own rules to remove."""
        for name, found in self.find(".*").items() if folder == "" else ():
            if is_left_behind(name, found.changed):
                self.remove(name)

    def set_aside(self, name: str) -> str:
        aside = f"{name}.corrupt"
        source = {"Bucket": self.bucket, "Key": self._key(name)}
        with s3.talking(self.file(name)):
            self._client.copy(source, self.bucket, self._key(aside))  # in parts, if it is too large for one
        self.remove(name)
        return self.file(aside)

    def confine(self, name: str) -> None:
        """Nothing in a bucket leads elsewhere."""

    def reachable(self) -> None:
        s3.reached(self.bucket, self._key(""))

    def writable(self) -> None:
        self.reachable()
        self.tidy("")
        probe = f".probe.{mark()}-{uuid4().hex}"
        try:
            made = self.create(probe, "1")
            try:
                again, changed = self.create(probe, "2"), self._put_if(probe, "3", IfMatch=f'"{"0" * 32}"')
                kept = self.read(probe) == b"1"
            finally:
                self.remove(probe)
        except OSError as error:
            raise Invalid(f"the store {self.root} cannot be written: {error.strerror}", WHERE) from None
        if not made or again or changed or not kept:
            raise Invalid(f"the store {self.root} cannot be shared safely: {s3.UNCONDITIONAL}", WHERE)

    def glimpse(self) -> Place:
        return Glimpse(self)

    @property
    def _client(self) -> Any:
        return s3.client()

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _ask(self, operation: str, name: str, **more: Any) -> Any:
        with s3.talking(self.file(name)):
            return getattr(self._client, operation)(Bucket=self.bucket, Key=self._key(name), **more)

    def _receive(self, name: str, handle: IO[bytes]) -> None:
        """Write what an object holds to a file."""

        def write(blocks: Iterable[bytes]) -> None:
            handle.seek(0)
            handle.truncate()
            handle.writelines(blocks)

        with s3.talking(self.file(name)):
            s3.receive(self._client, write, Bucket=self.bucket, Key=self._key(name))
        handle.flush()

    def _put_if(self, name: str, text: str, **condition: str) -> bool:
        """Have a file of this text if the condition holds; -> whether we have."""
        try:
            self._ask("put_object", name, Body=text.encode(), **condition)
        except FileExistsError:
            # It may be ours: an answer got lost, and the request was sent again.
            with suppress(FileNotFoundError):
                return self.read(name) == text.encode()
            return False
        return True

    def _send_in_parts(self, handle: IO[bytes], name: str, guard: Callable[[], object]) -> None:
        """Send a large file, which is there from the last request on."""
        upload = {"UploadId": self._ask("create_multipart_upload", name)["UploadId"]}
        try:
            parts = []
            for number, part in enumerate(iter(partial(handle.read, PART), b""), start=1):
                sent = self._ask("upload_part", name, PartNumber=number, Body=part, **upload)
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            guard()
            self._ask("complete_multipart_upload", name, MultipartUpload={"Parts": parts}, **upload)
        except BaseException:
            with suppress(OSError):
                self._ask("abort_multipart_upload", name, **upload)
            raise


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Of this process, until it ends."""
    return scratch()


_copies: dict[tuple[str, str], Path] = {}  # of this process, by the file's name and version


def _lasting(place: Bucket, name: str, version: str) -> Path:
    known = (place.file(name), version)
    if known not in _copies or not _copies[known].exists():
        with place.copy(name) as file:
            _copies[known] = Path(shutil.move(file, Path(_folder().name) / uuid4().hex))
    return _copies[known]
