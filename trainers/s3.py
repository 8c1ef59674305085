"""The way to a server that speaks S3, by boto3: a client, what went wrong, and when to try again.

boto3 is an extra of ours, and is loaded when a bucket is used. No message has anything of a secret in it.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from trainers.call import Invalid

WHERE = ("resources", "store")
ATTEMPTS = 10  # of a request, over about a minute; AWS_MAX_ATTEMPTS says otherwise
FIRST_ATTEMPTS = 4  # of that by which somebody wants to hear, within seconds, whether it is the right address
BLOCK = 1 << 20  # bytes that are received at once
CONNECTING, SILENCE = 10, 30  # seconds, less than a lease lasts
KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
UNCONDITIONAL = (
    "its server ignores If-None-Match or If-Match on PUT, by which runs agree on who trains a stage; use a newer "
    "version of it, or a folder"
)

MISSING = {"404", "NoSuchKey", "NotFound"}
UNMET = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
REFUSED = {"400", "401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
REFUSED |= {"InvalidToken", "AuthFailure", "InvalidClientTokenId", "RequestTimeTooSkewed", "AllAccessDisabled"}
ELSEWHERE = {"301", "307", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


@cache
def reached(bucket: str, prefix: str) -> None:
    """Ask a bucket for something, once in a process. Raises `Invalid` if it cannot be used, and soon if nobody answers:
    it may be the wrong address. Who asks without this waits as long as for any request."""
    first = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": 1}
    try:
        try:
            with talking(f"s3://{bucket}"):
                client(FIRST_ATTEMPTS).list_objects_v2(**first)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            with talking(f"s3://{bucket}"):
                client().list_objects_v2(**first)
    except OSError as error:
        raise Invalid(f"the store s3://{bucket} cannot be used: {error.strerror}", WHERE) from None


@cache
def client(attempts: int = ATTEMPTS) -> Any:
    """Making one takes tenths of a second. Raises `Invalid` without boto3."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise Invalid("a store on s3:// needs boto3: pip install 'tapath[s3]'", WHERE) from None
    retries: dict[str, Any] = {} if "AWS_RETRY_MODE" in os.environ else {"mode": "standard"}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = attempts
    config = Config(
        connect_timeout=CONNECTING,
        read_timeout=SILENCE,
        retries=retries,
        max_pool_connections=32,
        # Not every server knows boto3's newer checksums; what counts is held to our own SHA-256.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client("s3", config=config)


@contextmanager
def talking(what: str) -> Iterator[None]:
    """Turn what goes wrong between the server and us into an `OSError`, and an unmet condition into `FileExistsError`.

    what: the address that was asked for.
    """
    try:
        yield
    except (OSError, Invalid):
        raise
    except Exception as error:
        theirs = type(error).__module__.split(".")[0] in ("botocore", "boto3", "s3transfer", "urllib3")
        if not theirs and type(error) is not ValueError:  # of an endpoint that is no address
            raise
        number, reason = explained(error)
        raise OSError(number, reason, what) from None


def explained(error: Exception) -> tuple[int, str]:
    """The number of the like `OSError`, and what went wrong and what to do about it."""
    answer = getattr(error, "response", None) or {}
    said = answer.get("Error", {}).get("Code", "")
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if said == "NoSuchBucket":
        return errno.ENXIO, "there is no such bucket; make it, or mend its name"
    if said in MISSING:
        return errno.ENOENT, "there is no such object"
    if said in UNMET:
        return errno.EEXIST, "another was faster"
    if said == "NotImplemented" or status == 501:
        return errno.ENOTSUP, UNCONDITIONAL
    if said in ELSEWHERE:
        return errno.ENXIO, f"the server says {said}: is AWS_DEFAULT_REGION the bucket's region?"
    if said in REFUSED:
        return errno.EACCES, f"the server says {said}: see that {KEYS} are right, and may list, read, write and delete"
    if said == "SlowDown" or status >= 500:
        return errno.EBUSY, f"the server says {said or status}, again and again; try later"
    if answer:
        return errno.EIO, f"the server says {said or status}"
    return errno.EIO, _unanswered(error)


def _unanswered(error: Exception) -> str:
    """Of an error that the server has not told."""
    name = type(error).__name__
    match name:
        case "NoCredentialsError" | "PartialCredentialsError" | "CredentialRetrievalError" | "TokenRetrievalError":
            return f"there are no credentials for it ({name}); set {KEYS}"
        case "ProfileNotFound" | "ConfigParseError" | "ConfigNotFound" | "NoRegionError" | "InvalidRegionError":
            return f"boto3 is not set up ({name}); see AWS_PROFILE, AWS_DEFAULT_REGION and ~/.aws/config"
        case "ValueError" | "UnknownEndpointError" | "InvalidEndpointConfigurationError":
            return "AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL is no address; write one as in http://HOST:9000"
        case "ParamValidationError":
            return "S3 has no such names"
        case "SSLError":
            return f"the certificate of {endpoint()} is not trusted; AWS_CA_BUNDLE names a file of those that are"
        case _:
            return f"{endpoint()} does not answer ({name}); is it up, and AWS_ENDPOINT_URL_S3 its address?"


def endpoint() -> str:
    """Whom we talk to, without a password."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    parts = urlsplit(named)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if named else "the server"


def receive(client: Any, write: Callable[[Iterable[bytes]], None], **which: str) -> None:
    """Have `write` have all of an object, again from the beginning where the connection breaks off in the middle: boto3
    tries again only until an answer begins."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    for attempt in range(1, ATTEMPTS + 1):
        answer = client.get_object(**which)
        try:
            return write(answer["Body"].iter_chunks(BLOCK))
        except (HTTPClientError, IncompleteReadError):
            if attempt == ATTEMPTS:
                raise
            time.sleep(random.uniform(0, min(20, 2.0**attempt / 4)))
