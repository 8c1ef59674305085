"""Texts without the passwords and tokens of addresses in them."""

from __future__ import annotations

import re

LONGEST = 5000  # characters of a value; MLflow cuts or refuses longer ones, depending on the server

# A password may have anything in it that nobody wrote as %2F or %40, so all up to the last @ is taken for one: rather
# half of an address is lost, as of http://host:1/a@b, than a password is told.
_CREDENTIALS = re.compile(r"(?<=://)(?:[^/\s]*|[^/:\s]*:\S*)@")
_SECRETS = re.compile(
    r"(?i)([?&;][^=&;\s]*(?:user|pass|pwd|token|secret|sig|key|auth|credential)[^=&;\s]*=)[^&;\s\"']+"
)


def public(text: object) -> str:
    """The same text without the user, password or token of any URI in it, cut to what MLflow takes."""
    return without_secrets(str(text))[:LONGEST]


def without_secrets(text: str) -> str:
    """The same text without the user, password or token of any URI in it."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub("", text))
