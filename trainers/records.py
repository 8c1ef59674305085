"""What a store writes down beside results: small records, each a file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from trainers.call import Spec


class Header(BaseModel):
    """What results of all formats say."""

    format: int


class Pause(Spec):
    """The epochs of a stage that paused."""

    history: tuple[dict[str, float], ...]


class Begun(Spec):
    """By which code a stage was trained so far that is not done; see `sources`."""

    sources: dict[str, str]


class Known(Spec):
    """What a source of published weights held."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Measurement(Spec):
    """The score that the weights with this digest had when they were read back."""

    sha256: str
    score: float
    version: str = ""  # of the weights, where the place of the store has one
