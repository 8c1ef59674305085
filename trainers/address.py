"""What the address of a store says: a folder, or a bucket of S3 and a prefix in it."""

from __future__ import annotations

import re
from pathlib import Path

from trainers.bucket import Bucket
from trainers.call import Invalid
from trainers.folder import Folder
from trainers.place import Place

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
BUCKET = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,254})((?:/[^\s?#]*)?)")
POSSIBLE = "write a folder, as in /shared/store, or a bucket, as in s3://bucket/prefix"


def at(address: str | Path) -> Place:
    """The place of this address. Raises `Invalid` as `checked` does; nothing is looked at."""
    if not in_bucket(address):
        return Folder(address)
    named = BUCKET.fullmatch(checked(str(address)))
    assert named is not None, "it was checked"
    return Bucket(named[1], named[2].strip("/"))


def in_bucket(address: str | Path) -> bool:
    """Whether it has a scheme: it then is no folder."""
    return isinstance(address, str) and SCHEME.match(address) is not None


def checked(address: str) -> str:
    """The address as it is. Raises `Invalid` for one that leads nowhere; no message has more of it than its scheme,
    as what follows may be secret."""
    scheme = SCHEME.match(address)
    if scheme is None or BUCKET.fullmatch(address):
        parts = address.partition("://")[2].split("/")[1:] if scheme else []
        if "." in parts or ".." in parts:
            raise Invalid(f"a prefix has no . or .. as a part: {POSSIBLE}")
        return address
    if scheme[1].lower() != "s3":
        raise Invalid(f"nothing is stored at {scheme[1]}:// addresses: {POSSIBLE}")
    if "@" in address:
        raise Invalid("credentials do not go into the address: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if BUCKET.fullmatch("".join(address.split())):
        raise Invalid("there is a blank in it, which S3 allows and a store's address does not: name a prefix without")
    raise Invalid("s3:// is followed by the name of a bucket, and then a prefix if you like: s3://bucket/prefix")
